const show=(n:string)=>{const m=process.memoryUsage(); const s=require0("/proc/self/smaps_rollup"); console.log(n, (m.rss/1e6).toFixed(0), 'heapTotal', (m.heapTotal/1e6).toFixed(0), 'heapUsed', (m.heapUsed/1e6).toFixed(0),'ext', (m.external/1e6).toFixed(0));};
import { readFileSync } from "node:fs"; const require0=(p:string)=>readFileSync(p,'utf8');
show("start");
const {Machine}=await import("/work/main/src/machine/machine.ts");
show("imported");
const { gunzipSync } = await import("node:zlib");
let lim=Number(process.argv[4]??1e9);
const m = new Machine({kernel:readFileSync(process.argv[2]!), initrd:readFileSync(process.argv[3]!), cmdline:"console=ttyS0 quiet", memoryBytes:512<<20, cpuModel:"x86-64-v2", clock:"deterministic", traceExits:false, rtcEpochMs:0},{nowMs:()=>performance.now(),entropy:()=>0n,doorbell:()=>m!==undefined&&m.processor.retired>lim,send:()=>{},decompressors:{gzip:(s:any)=>gunzipSync(s)}});
show("constructed");
for (const l of [2e8,5e8,1e9,1.2e9]) {lim=l; m.runUntilBlocked(); show("ran "+l);}
(globalThis as any).gc?.(); await new Promise(r=>setTimeout(r,3000)); (globalThis as any).gc?.(); show("gc");
console.log(require0("/proc/self/smaps_rollup").split("\n").filter(l=>/Rss|Anon|Private_Dirty/.test(l)).join(" "));
const maps=require0("/proc/self/smaps").split(/\n(?=[0-9a-f]+-[0-9a-f]+ )/).map(x=>{const r=Number(/Rss: +(\d+)/.exec(x)?.[1]??0); return [r,x.split("\n")[0]] as const}).sort((a,b)=>b[0]-a[0]).slice(0,14);
for (const [r,x] of maps) console.log((r/1024).toFixed(1),x);
