/**
 * VMX for guest software, on the processor alone: every instruction, entries, exits, and what they leave. SDM Vol. 3C.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { imm, qword } from "../src/processor/isa/assemble.ts";
import { ExitReason } from "../src/processor/isa/exit-reasons.ts";
import { al, dx, eax, ecx, rax, rbx } from "../src/processor/isa/registers.ts";
import { Field } from "../src/processor/isa/vmcs-fields.ts";
import { At, VmxLab } from "./vmx-lab.ts";

const TIERS = ["interpreter", "jit"] as const;

for (const engine of TIERS) {
  test(`a guest hypervisor serves CPUID, I/O, EPT violations and HLT of its guest (${engine})`, () => {
    const lab = new VmxLab({
      engine,
      guest: (a) => {
        a.emit("mov", eax, imm(7));
        a.emit("xor", ecx, ecx);
        a.emit("cpuid");
        a.emit("mov", dx, imm(0x3f8));
        a.emit("mov", al, imm(0x41));
        a.emit("out", dx, al);
        a.emit("mov", rax, imm(0x1234));
        a.label("store");
        a.emit("mov", qword(At.DATA + 0x3008), rax);
        a.emit("mov", rbx, qword(At.DATA + 0x3008));
        a.emit("hlt");
      },
    });
    lab.prepare([[Field.PRIMARY_CONTROLS, 0x8500_6172n | 0x80n]]);
    lab.write(lab.eptEntry(3), 0n);
    assert.equal(lab.launch(), "ok");
    assert.equal(Number(lab.field(Field.EXIT_REASON)), ExitReason.CPUID);
    assert.equal(lab.register(0), 7n);
    assert.equal(lab.field(Field.EXIT_INSTRUCTION_LENGTH), 2n);
    lab.setRegister(0, 0xabcdn);
    lab.skip();
    assert.equal(lab.next(), ExitReason.IO);
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x3f8_0000n);
    assert.equal(lab.register(0) & 0xffn, 0x41n);
    lab.skip();
    assert.equal(lab.next(), ExitReason.EPT_VIOLATION);
    assert.equal(lab.field(Field.GUEST_PHYSICAL_ADDRESS), BigInt(At.DATA + 0x3008));
    assert.equal(lab.field(Field.GUEST_LINEAR_ADDRESS), BigInt(At.DATA + 0x3008));
    assert.equal(lab.field(Field.EXIT_QUALIFICATION), 0x182n);
    assert.equal(lab.field(Field.GUEST_RIP), lab.addressOf("store"));
    lab.write(lab.eptEntry(3), BigInt(At.DATA + 0x5000) | 0x37n);
    assert.equal(lab.next(), ExitReason.HLT);
    assert.equal(lab.read(At.DATA + 0x5008), 0x1234n);
    assert.equal(lab.register(3), 0x1234n);
    assert.deepEqual(lab.own, [], "nothing of it has come to our own hypervisor");
  });
}
