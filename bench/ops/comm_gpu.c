/* comm_gpu.c: how long a sum over GPU ranks takes by p2p and by NCCL, at each size, and the size up to which p2p is the faster: the row of the table in
 * src/dev/cuda/exchange.c. Usage: build/bench/ops/comm_gpu I,J,... (CUDA ordinals, one a rank; `make cuda` first).
 *
 * Sums of bf16 that follow one another on the stream, mean of 40 after 5. GB/s: bytes of the buffer * 2 (n - 1) / n over the time ("bus bandwidth"). */
#include "dev/comm_test.h"
#include "dev/open.h"
#include "hw/gpu.h"

#include <stdio.h>

static int fail(const struct err *e) {
    fprintf(stderr, "%s\n", e->text);
    return 1;
}

int main(int argc, char **argv) {
    const struct dev_maker *maker;
    int32_t gpus[8], n;
    double p2p[COMM_TEST_SIZES], nccl[COMM_TEST_SIZES];
    char why[600];
    struct err e;
    if (argc != 2 || gpus_named(argv[1], gpus, 8, &n) || (n & (n - 1)) || n < 2) {
        fprintf(stderr, "usage: comm_gpu I,J,... : the CUDA ordinals of 2, 4 or 8 GPUs\n");
        return 2;
    }
    if (dev_choose(&maker, "cuda", why, sizeof why, &e)) return fail(&e);
    struct comm_test_args a = {.maker = maker, .name = "p2p", .gpus = gpus, .n_ranks = n, .time = true, .timeout_s = 20};
    bool has_p2p = dev_comm_test(&a, stdout, p2p, &e) >= 0, has_nccl;
    if (!has_p2p) printf("p2p: %s\n", e.text);
    a.name = "nccl";
    has_nccl = dev_comm_test(&a, stdout, nccl, &e) >= 0;
    if (!has_nccl) printf("nccl: %s\n", e.text);
    if (!has_p2p && !has_nccl) return 1;
    size_t up_to = 0;
    printf("%10s %12s %8s %12s %8s\n", "bytes", "p2p, us", "GB/s", "nccl, us", "GB/s");
    for (int i = 0; i < COMM_TEST_SIZES; i++) {
        size_t bytes = (size_t)1024 << i;
        double moved = (double)bytes * 2 * (n - 1) / n / 1e3;
        printf("%10zu", bytes);
        if (has_p2p) printf(" %12.1f %8.1f", p2p[i], moved / p2p[i]);
        else printf(" %12s %8s", "-", "-");
        if (has_nccl) printf(" %12.1f %8.1f\n", nccl[i], moved / nccl[i]);
        else printf(" %12s %8s\n", "-", "-");
        if (has_p2p && has_nccl && p2p[i] <= nccl[i]) up_to = bytes;
    }
    if (has_p2p && has_nccl) printf("row of `who` in src/dev/cuda/exchange.c: {%d, %zu}\n", n, up_to);
    return 0;
}
