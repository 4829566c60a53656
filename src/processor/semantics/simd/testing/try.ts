import { ROWS } from "../../../isa/table.ts";
import { SIMD } from "../index.ts";
import { createBench, shapeOf } from "./harness.ts";
const F = new Set(["mmx","fxsr","sse","sse2","pni","ssse3","sse4_1","sse4_2","aes","pclmulqdq","popcnt","xsave","xsaveopt","xsavec","xsaves"]);
const shapes = new Map();
let missing = new Set();
const used = new Set();
for (const row of ROWS) {
  if (SIMD[row.sem]) used.add(row.sem);
  if (!F.has(row.feature) && !SIMD[row.sem]) continue;
  if (!SIMD[row.sem]) { missing.add(row.sem); continue; }
  const rm = row.specs.find(s=>s.place==="rm");
  const sizes = [2,4,8].filter(z => row.opsizes & z);
  for (const opsize of sizes) for (const mem of [false,true]) {
    if (rm && rm.mod !== "any" && (rm.mod==="mem") !== mem) continue;
    if (!rm && mem) continue;
    if (row.sem==="nop") continue;
    shapes.set(`${row.id}:${opsize}:${mem}`, shapeOf(row, mem, opsize as 2|4|8));
  }
}
console.log("missing", [...missing], "unused", Object.keys(SIMD).filter(k=>!used.has(k)));
const t=performance.now();
const b = createBench(shapes);
console.log(shapes.size, b.size, performance.now()-t);
