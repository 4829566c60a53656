/** Virtual machine extensions: SDM Vol. 3C, "VMX Instruction Reference". Ring and mode checks are the executor's. */
import { defineRows } from "../row.ts";

export const vmxRows = defineRows("vmx", [
  ["NP 0F 01 C1", "VMCALL", "", "noreal"],
  ["NP 0F 01 C2", "VMLAUNCH", "", "noreal"],
  ["NP 0F 01 C3", "VMRESUME", "", "noreal"],
  ["NP 0F 01 C4", "VMXOFF", "", "noreal"],
  ["NP 0F 01 D4", "VMFUNC", "", "noreal"],
  ["NP 0F C7 /6", "VMPTRLD", "Mq", "noreal"],
  ["66 0F C7 /6", "VMCLEAR", "Mq", "noreal"],
  ["F3 0F C7 /6", "VMXON", "Mq", "noreal"],
  ["NP 0F C7 /7", "VMPTRST", "Mq", "noreal"],
  ["NP 0F 78 /r", "VMREAD", "Ey,Gy", "f64 noreal"],
  ["NP 0F 79 /r", "VMWRITE", "Gy,Ey", "f64 noreal"],
  ["66 0F 38 80 /r", "INVEPT", "Gy,Mdq", "f64 noreal"],
  ["66 0F 38 81 /r", "INVVPID", "Gy,Mdq", "f64 noreal"],
]);
