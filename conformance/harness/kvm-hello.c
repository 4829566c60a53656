/* The least KVM program: a VM with real-mode code that writes a text to port 0x3f8 and halts. Prints what it wrote and how it ended. */
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

static const uint8_t code[] = {
	0xba, 0xf8, 0x03,             /* mov dx, 0x3f8 */
	0xbe, 0x20, 0x10,             /* mov si, 0x1020 */
	0xac,                         /* lodsb */
	0x84, 0xc0,                   /* test al, al */
	0x74, 0x03,                   /* jz +3 */
	0xee,                         /* out dx, al */
	0xeb, 0xf8,                   /* jmp lodsb */
	0xf4,                         /* hlt */
};

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0) { perror("/dev/kvm"); return 1; }
	int vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0) { perror("KVM_CREATE_VM"); return 1; }
	/* Without unrestricted guest KVM needs a place for a TSS. */
	ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000);
	uint8_t *memory = mmap(0, 0x10000, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(memory + 0x1000, code, sizeof code);
	strcpy((char *)memory + 0x1020, "real mode\n");
	struct kvm_userspace_memory_region region = { .memory_size = 0x10000, .userspace_addr = (uint64_t)memory };
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region)) { perror("memory"); return 1; }
	int vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0) { perror("KVM_CREATE_VCPU"); return 1; }
	int size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	struct kvm_run *run = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	struct kvm_sregs sregs;
	ioctl(vcpu, KVM_GET_SREGS, &sregs);
	sregs.cs.base = sregs.cs.selector = 0;
	ioctl(vcpu, KVM_SET_SREGS, &sregs);
	struct kvm_regs regs = { .rip = 0x1000, .rflags = 2 };
	ioctl(vcpu, KVM_SET_REGS, &regs);
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0)) { perror("KVM_RUN"); return 1; }
		if (run->exit_reason == KVM_EXIT_IO) {
			putchar(*((char *)run + run->io.data_offset));
			continue;
		}
		if (run->exit_reason == KVM_EXIT_HLT) { puts("halted"); return 0; }
		printf("exit %u\n", run->exit_reason);
		return 1;
	}
}
