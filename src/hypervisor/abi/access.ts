/** The two events that device models know: an I/O instruction and an access to a device page, answered by buses. */
import { ExitReasons } from "./exit-reasons.ts";
import { DeviceAccess, type Message, StateGroup } from "./message.ts";
import { Status } from "./status.ts";

type PortSize = 1 | 2 | 4;
type MmioSize = 1 | 2 | 4 | 8;

/** devices/port-bus.ts is one. */
export interface PortSpace {
  read(port: number, size: PortSize): number;
  write(port: number, size: PortSize, value: number): void;
}

/** devices/mmio-bus.ts is one. */
export interface MemorySpace {
  read(address: number, size: MmioSize): number | bigint;
  write(address: number, size: MmioSize, value: number | bigint): void;
}

const RAX = 0;
/** I/O qualification. SDM Vol. 3C, "Exit Qualification for I/O Instructions". */
const IoBits = { SIZE: 7, IN: 1 << 3, STRING: 1 << 4 } as const;

export function answerAccess(
  message: Message,
  ports: PortSpace | null,
  memory: MemorySpace | null,
): Status {
  if (message.reason === ExitReasons.IO && ports) return answerPort(message, ports);
  if (message.reason === ExitReasons.EPT_VIOLATION && memory) return answerMemory(message, memory);
  return Status.UNHANDLED;
}

/** IN and OUT of RAX. String forms never get here: the kernel takes them apart. */
function answerPort(message: Message, ports: PortSpace): Status {
  const q = message.qualification;
  const size = ((q & IoBits.SIZE) + 1) as PortSize;
  const port = q >>> 16;
  if (q & IoBits.STRING) return Status.UNHANDLED;
  if (q & IoBits.IN) {
    message.writeRegister(RAX, size, ports.read(port, size));
    message.groups = StateGroup.RIP | StateGroup.LOW_REGISTERS;
  } else {
    const low = message.registerLow(RAX);
    ports.write(port, size, size === 4 ? low : low & (2 ** (8 * size) - 1));
    message.groups = StateGroup.RIP;
  }
  message.skip();
  return Status.OK;
}

function answerMemory(message: Message, memory: MemorySpace): Status {
  const size = message.deviceSize as MmioSize;
  const address = message.physical;
  if (message.deviceAccess === DeviceAccess.WRITE) {
    const data = message.deviceData;
    memory.write(address, size, size === 8 ? data : Number(data));
    message.groups = 0;
  } else {
    message.deviceData = BigInt.asUintN(64, BigInt(memory.read(address, size)));
    message.groups = StateGroup.DEVICE;
  }
  return Status.OK;
}
