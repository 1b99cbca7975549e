/* futex.h: sleeping on a 32-bit word of this process, for waits that spin a little first. Linux only. */
#ifndef MINISGL_BASE_FUTEX_H
#define MINISGL_BASE_FUTEX_H
#include <linux/futex.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* Sleep while *word is value, for limit_ns at most (0: no limit). May return for no reason. */
static inline void futex_wait(_Atomic uint32_t *word, uint32_t value, uint64_t limit_ns) {
    const struct timespec limit = {(time_t)(limit_ns / 1000000000), (long)(limit_ns % 1000000000)};
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, limit_ns ? &limit : NULL, NULL, 0);
}

static inline void futex_wake(_Atomic uint32_t *word, int n) { syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0); }

static inline void cpu_relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
