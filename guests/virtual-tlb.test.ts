/** A vCPU without EPT, on the bench: device pages, and what the guest reads of the registers that the virtual TLB has taken over. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ActiveTables } from "../src/hypervisor/paging/active-tables.ts";
import { DEVICE_SPACE, VirtualTlb } from "../src/hypervisor/paging/virtual-tlb.ts";
import { dword, imm } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { cr0, cr3, cr4, eax, ebx, ecx, r8, r9, r10, rdi } from "../src/processor/isa/registers.ts";
import { VendorField } from "../src/processor/isa/vendor.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { HYPERVISOR_BASE, HYPERVISOR_BYTES } from "../src/processor/state/layout.ts";
import { EXIT_PORT } from "./bare-metal.ts";
import { Lab, TIERS } from "./lab.ts";

const RAM = 16 << 20;
const DEVICE = 0xfe00_0000;
const ACTIVE_BYTES = 0x10_0000;
const EFER = 0xc000_0080;
const NXE = 0x800;

function withVirtualTlb(lab: Lab): VirtualTlb {
  const end = HYPERVISOR_BASE + HYPERVISOR_BYTES;
  return new VirtualTlb(lab.vmcs, lab.view, {
    tables: new ActiveTables(lab.view, end - ACTIVE_BYTES, end),
    ramBytes: RAM,
    flush: () => lab.processor.engine.flushTlb(),
  });
}

/** Runs to the next exit that is not the virtual TLB's. */
function enter(lab: Lab, tlb: VirtualTlb): number {
  for (let n = 0; n < 1000; n++) {
    const reason = lab.enter();
    const { kind } = tlb.handle(reason);
    if (kind === "other") return reason;
    assert.notEqual(kind, "raise");
    if (kind === "next") lab.skip();
  }
  assert.fail("it does not come to an end");
}

for (const engine of TIERS) {
  test(`a device page below active tables has access assist, at its address in the device space (${engine})`, () => {
    const lab = new Lab({
      engine,
      build: (a) => {
        a.emit("mov", rdi, imm(DEVICE));
        a.emit("mov", eax, dword(rdi, 0x10));
        a.emit("mov", dword(rdi, 0x20), eax);
        a.emit("out", imm(EXIT_PORT), eax);
      },
    });
    const tlb = withVirtualTlb(lab);
    const { vmcs } = lab;
    assert.equal(enter(lab, tlb), ExitReason.EPT_VIOLATION);
    assert.equal(vmcs.number(Field.GUEST_PHYSICAL_ADDRESS) - DEVICE_SPACE, DEVICE + 0x10);
    vmcs.setBig(VendorField.DEVICE_READ_REPLY, 0x1234_5678n);
    assert.equal(enter(lab, tlb), ExitReason.EPT_VIOLATION);
    assert.equal(vmcs.number(Field.GUEST_PHYSICAL_ADDRESS) - DEVICE_SPACE, DEVICE + 0x20);
    assert.equal(vmcs.big(VendorField.DEVICE_WRITE_DATA), 0x1234_5678n);
    assert.equal(enter(lab, tlb), ExitReason.IO);
  });

  test(`the guest reads its own CR0, CR3, CR4 and EFER, not those of the active tables (${engine})`, () => {
    const lab = new Lab({
      engine,
      build: (a) => {
        a.emit("mov", r8, cr0);
        a.emit("mov", r9, cr3);
        a.emit("mov", r10, cr4);
        a.emit("mov", ecx, imm(EFER));
        a.emit("rdmsr");
        a.emit("mov", ebx, eax);
        a.emit("out", imm(EXIT_PORT), eax);
      },
    });
    const { vmcs } = lab;
    const own = [Field.GUEST_CR0, Field.GUEST_CR3, Field.GUEST_CR4, Field.GUEST_EFER].map((field) =>
      vmcs.big(field),
    );
    const tlb = withVirtualTlb(lab);
    assert.equal(enter(lab, tlb), ExitReason.IO);
    assert.deepEqual(
      [8, 9, 10, 3].map((n) => lab.register(n)),
      own,
    );
    assert.notEqual(vmcs.big(Field.GUEST_CR3), own[1]);
    assert.equal(vmcs.number(Field.GUEST_EFER) & NXE, NXE);
  });
}

test("page tables outside of memory end the VM with what is missing", () => {
  const lab = new Lab({ engine: "interpreter", build: (a) => a.emit("nop") });
  lab.vmcs.set(Field.GUEST_CR3, RAM);
  const tlb = withVirtualTlb(lab);
  assert.throws(() => enter(lab, tlb), { code: "active-paging" });
});
