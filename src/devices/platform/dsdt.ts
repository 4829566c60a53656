/**
 * The machine as ACPI objects: what the definition block of the DSDT contains.
 * Spec: ACPI Specification 6.x, "Device Configuration"; PCI Firmware Specification, "_PRT" and "_CRS of the host bridge".
 *
 * PCI interrupts are wired, not routed: IOAPIC pins once the OS says so through \_PIC, one shared ISA line until then.
 * The generation counter says in memory which life of a snapshot this is; a general purpose event tells that it has changed (Microsoft,
 * "Virtual Machine Generation ID").
 * IOAPIC, local APICs and PM registers are not repeated here; the OS reserves them from MADT and FADT.
 */

import { Gpe } from "./acpi-pm.ts";
import {
  type Aml,
  aPackage,
  busRange,
  device,
  eisaId,
  integer,
  ioPorts,
  ioWindow,
  isaIrq,
  memory32Fixed,
  memoryWindow,
  method,
  name,
  notify,
  path,
  resources,
  returns,
  scope,
  storeArg0,
  string,
  when,
} from "./aml.ts";
import { PCI_SLOTS } from "./pci-host.ts";
import { Gsi, Irq, MemoryMap, Port, SERIAL_PORTS, SLEEP_TYPE_S5 } from "./platform-map.ts";

const INTX_PINS = 4;

export function dsdtBody(cpuCount: number): Aml {
  const cpus = Array.from({ length: cpuCount }, (_, uid) => processor(uid));
  return [
    ...name("PICF", integer(0)),
    ...method("_PIC", 1, storeArg0("PICF")),
    ...name("_S5", aPackage(integer(SLEEP_TYPE_S5), integer(0), integer(0), integer(0))),
    ...scope(
      "\\_SB",
      ...cpus,
      pciRoot(),
      ...isaDevices(),
      ...serialPorts(),
      motherboard(),
      generationCounter(),
    ),
    ...scope("\\_GPE", method(`_E0${Gpe.GENERATION}`, 0, notify("\\_SB.VGEN", STATUS_CHANGED))),
  ];
}

/** \_SB.Cnnn; the _UID joins it to the MADT. */
function processor(uid: number): Aml {
  const digits = uid.toString(16).toUpperCase().padStart(3, "0");
  return device(`C${digits}`, name("_HID", string("ACPI0007")), name("_UID", integer(uid)));
}

function pciRoot(): Aml {
  return device(
    "PCI0",
    name("_HID", eisaId("PNP0A03")),
    name("_UID", integer(0)),
    name("_BBN", integer(0)),
    name("_SEG", integer(0)),
    name(
      "_CRS",
      resources(
        busRange(0, 0),
        ioPorts(Port.PCI_ADDRESS, 8),
        ioWindow(0, Port.PCI_ADDRESS - 1),
        ioWindow(Port.PCI_DATA + 4, 0xffff),
        memoryWindow(MemoryMap.PCI_MMIO_BASE, MemoryMap.PCI_MMIO_END - 1),
      ),
    ),
    name(
      "PRTP",
      routing(() => Irq.PCI),
    ),
    name(
      "PRTA",
      routing((line) => Gsi.PCI_INTX + line),
    ),
    method("_PRT", 0, when(path("PICF"), returns(path("PRTA"))), returns(path("PRTP"))),
  );
}

/** An entry for each slot and pin: device address, pin, no link device, the interrupt itself. */
function routing(interrupt: (line: number) => number): Aml {
  const entries = Array.from({ length: PCI_SLOTS * INTX_PINS }, (_, i) => {
    const slot = Math.floor(i / INTX_PINS);
    const pin = i % INTX_PINS;
    const gsi = interrupt((slot + pin) % INTX_PINS);
    return aPackage(integer(slot * 0x1_0000 + 0xffff), integer(pin), integer(0), integer(gsi));
  });
  return aPackage(...entries);
}

function isaDevices(): Aml[] {
  return [
    device(
      "PIC",
      name("_HID", eisaId("PNP0000")),
      name(
        "_CRS",
        resources(
          ioPorts(Port.PIC_MASTER, 2),
          ioPorts(Port.PIC_SLAVE, 2),
          ioPorts(Port.ELCR, 2),
          isaIrq(Irq.CASCADE),
        ),
      ),
    ),
    device(
      "TIMR",
      name("_HID", eisaId("PNP0100")),
      name("_CRS", resources(ioPorts(Port.PIT, 4), isaIrq(Irq.PIT))),
    ),
    device(
      "RTC",
      name("_HID", eisaId("PNP0B00")),
      name("_CRS", resources(ioPorts(Port.RTC_INDEX, 2), isaIrq(Irq.RTC))),
    ),
    device(
      "HPET",
      name("_HID", eisaId("PNP0103")),
      name("_UID", integer(0)),
      name("_CRS", resources(memory32Fixed(MemoryMap.HPET_BASE, MemoryMap.HPET_SIZE, true))),
    ),
  ];
}

function serialPorts(): Aml[] {
  return SERIAL_PORTS.map((port, i) =>
    device(
      port.name,
      name("_HID", eisaId("PNP0501")),
      name("_UID", integer(i + 1)),
      name("_CRS", resources(ioPorts(port.base, 8), isaIrq(port.irq))),
    ),
  );
}

/** Notification of a device: its status, or what it is there for, has changed. */
const STATUS_CHANGED = 0x80;

/** The name is Microsoft's; Linux looks for it in capitals. */
function generationCounter(): Aml {
  return device(
    "VGEN",
    name("_HID", string("HYPO0001")),
    name("_CID", aPackage(string("VM_Gen_Counter"), string("VM_GEN_COUNTER"))),
    name("_DDN", string("VM_Gen_Counter")),
    name("ADDR", aPackage(integer(MemoryMap.GENERATION_ID), integer(0))),
  );
}

/** Everything that is decoded and has no device of its own. */
function motherboard(): Aml {
  return device(
    "MBRD",
    name("_HID", eisaId("PNP0C02")),
    name("_UID", integer(0)),
    name(
      "_CRS",
      resources(
        ioPorts(Port.SYSTEM_CONTROL_B, 1),
        ioPorts(Port.POST, 1),
        ioPorts(Port.SYSTEM_CONTROL_A, 1),
        ioPorts(Port.PM1_EVENT, Port.PM_END - Port.PM1_EVENT),
        memory32Fixed(MemoryMap.ECAM_BASE, MemoryMap.ECAM_SIZE, false),
      ),
    ),
  );
}
