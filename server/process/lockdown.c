/*
 * A seccomp filter of one idea: the listed calls fail with EPERM, all others are as ever. The kernel knows which calls
 * a filter always allows, so they cost nothing.
 */
#include "process/lockdown.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_ADDRESS__)
#define HAS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#elif defined(__riscv)
#define NATIVE AUDIT_ARCH_RISCV64
#endif

#if defined(NATIVE) && !defined(HAS_SANITIZER)

static const int refused[] = {
#ifdef SYS_fork
    SYS_fork,
    SYS_vfork,
#endif
    SYS_clone,
    SYS_clone3,
    SYS_execve,
    SYS_execveat,
    SYS_ptrace,
    SYS_process_vm_readv,
    SYS_process_vm_writev,
    /* A file system of its own would let it make others wait: those that open what it passes to them. */
    SYS_unshare,
    SYS_setns,
    SYS_mount,
    SYS_umount2,
    SYS_pivot_root,
    SYS_chroot,
    SYS_fsopen,
    SYS_fsconfig,
    SYS_fsmount,
    SYS_fspick,
    SYS_open_tree,
    SYS_move_mount,
#ifdef SYS_mount_setattr
    SYS_mount_setattr,
#endif
};

enum {
    X32_BIT = 0x40000000, /* the same calls under other numbers */
    N_REFUSED = sizeof refused / sizeof *refused,
    N_STEPS = N_REFUSED + 6,
};

static int install(void)
{
    struct sock_filter steps[N_STEPS] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NATIVE, 0, N_STEPS - 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_BIT, N_STEPS - 5, 0),
    };
    struct sock_fprog program = {N_STEPS, steps};

    for (int i = 0; i < N_REFUSED; i++)
        steps[i + 4] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)refused[i],
                                                    (unsigned char)(N_REFUSED - i), 0);
    steps[N_STEPS - 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    steps[N_STEPS - 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM);
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0 ? 0 : -errno;
}

#else

static int install(void)
{
    return 0;
}

#endif

int lockdown(void)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -errno;
    int error = install();
    return error == -EINVAL ? 0 : error; /* a kernel without seccomp: the user's rights are what is left */
}
