/**
 * What a file that is not a kernel looks like, for error messages: the commonest things that people pass by mistake.
 */

export interface FileKind {
  /** "a gzip-compressed file" */
  readonly what: string;
  readonly hint: string;
}

/** Offset, bytes there (as Latin-1), what it is, what to do. */
type Signature = readonly [at: number, magic: string, what: string, hint: string];

const WANTED = "pass a Linux bzImage (vmlinuz), an x86 vmlinux, or a Multiboot kernel";
const UNPACK = "unpack it first; if it is an initramfs, pass it as the initrd, not as the kernel";
const INITRD = "pass it as the initrd, not as the kernel";
const DISK = "that is a disk, not a kernel: pass the kernel inside it, and the disk as a drive";
const FOREIGN = "use a kernel built for x86-64 or i386";
const PACKAGE = "the kernel is in it: unpack it and take boot/vmlinuz-*";

const SIGNATURES: readonly Signature[] = [
  [0x38, "ARMd", "an arm64 Linux kernel (Image)", FOREIGN],
  [0x38, "RSC\x05", "a RISC-V Linux kernel (Image)", FOREIGN],
  [0x24, "\x18\x28\x6f\x01", "a 32-bit ARM Linux kernel (zImage)", FOREIGN],
  [0, "\x27\x05\x19\x56", "a U-Boot image", FOREIGN],
  [0, "\xd0\x0d\xfe\xed", "a device tree or FIT image", FOREIGN],
  [0, "\x1f\x8b", "a gzip-compressed file", UNPACK],
  [0, "\xfd7zXZ", "an xz-compressed file", UNPACK],
  [0, "\x28\xb5\x2f\xfd", "a zstd-compressed file", UNPACK],
  [0, "BZh", "a bzip2-compressed file", UNPACK],
  [0, "\x02\x21\x4c\x18", "an LZ4-compressed file", UNPACK],
  [0, "\x04\x22\x4d\x18", "an LZ4-compressed file", UNPACK],
  [0, "07070", "a cpio archive (an initramfs)", INITRD],
  [0, "!<arch>\n", "a Debian package or ar archive", PACKAGE],
  [0, "\xed\xab\xee\xdb", "an RPM package", PACKAGE],
  [0, "PK\x03\x04", "a zip archive", "unpack it first"],
  [257, "ustar", "a tar archive", "unpack it first"],
  [0, "QFI\xfb", "a qcow2 disk image", DISK],
  [0, "KDMV", "a VMDK disk image", DISK],
  [0, "conectix", "a VHD disk image", DISK],
  [0, "vhdxfile", "a VHDX disk image", DISK],
  [0, "hsqs", "a squashfs image", DISK],
  [0x400, "\xe2\xe1\xf5\xe0", "an EROFS image", DISK],
  [0x438, "\x53\xef", "an ext2, ext3 or ext4 file system", DISK],
  [0x200, "EFI PART", "a disk image with a GPT partition table", DISK],
  [0x8001, "CD001", "an ISO 9660 image", DISK],
  [0, "#!", "a script", WANTED],
  [0, "\0asm", "a WebAssembly module", WANTED],
  [0, "MZ", "a Windows or EFI program without a Linux boot header", WANTED],
  [0x1fe, "\x55\xaa", "a boot sector or a disk image with an MBR", DISK],
];

/** e_machine values of the gABI that a kernel could plausibly have. */
const MACHINES: ReadonlyMap<number, string> = new Map([
  [2, "SPARC"],
  [3, "i386"],
  [8, "MIPS"],
  [20, "PowerPC"],
  [21, "PowerPC64"],
  [22, "IBM S/390"],
  [40, "ARM"],
  [43, "SPARC V9"],
  [50, "Itanium"],
  [62, "x86-64"],
  [183, "AArch64"],
  [243, "RISC-V"],
  [247, "BPF"],
  [258, "LoongArch"],
]);

export function describeMachine(machine: number): string {
  return MACHINES.get(machine) ?? `machine ${machine}`;
}

export function describeFile(file: Uint8Array): FileKind {
  const signature = SIGNATURES.find(([at, magic]) => hasMagic(file, at, magic));
  if (signature) return { what: signature[2], hint: signature[3] };
  const sample = file.subarray(0, 4096);
  if (sample.every((byte) => byte === 0)) {
    return { what: "a file that begins with zeros", hint: WANTED };
  }
  if (sample.every(isTextByte)) {
    const start = String.fromCharCode(...sample.subarray(0, 40).filter((b) => b >= 32 && b < 127));
    return { what: `a text file ("${start}")`, hint: WANTED };
  }
  return { what: "a file of unknown format", hint: WANTED };
}

function hasMagic(file: Uint8Array, at: number, magic: string): boolean {
  for (let i = 0; i < magic.length; i++) {
    if (file[at + i] !== magic.charCodeAt(i)) return false;
  }
  return true;
}

function isTextByte(byte: number): boolean {
  return byte >= 32 || (byte >= 9 && byte <= 13) || byte === 27;
}
