/* p2p.h: what the host side (p2p.c) and the kernels (p2p.cu) of the communicator `p2p` share. Compiles as C11 and as CUDA C++.
 *
 * A rank's block of memory, which all ranks can read, is flags, then two stages of a piece for each thread block. A thread block
 * works with the one of the same number on every other rank and with no other: it copies a piece of its own buffer to its stage,
 * counts its flag up to the piece's number, waits until the others' flags are as far, and reads their stages. Pieces use the two
 * stages in turn: a flag at n + 1 says that its rank is done with reading piece n, so that stage n + 2 may be written. The number of
 * the last piece is kept on the device, so a captured launch can be replayed.
 *
 * One shot: every rank reads all stages and adds up: n - 1 pieces over the links for each piece. Two shots, for what is large: a rank adds
 * up its n-th part of the piece only, and that is the next piece, whose parts all then read: 2 (n - 1) / n pieces. Both give the same bits. */
#ifndef MINISGL_DEV_CUDA_P2P_H
#define MINISGL_DEV_CUDA_P2P_H
#include "comm/gpu.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All ranks' thread blocks on one GPU must find room there at the same time: at most P2P_GPU_BLOCKS. */
enum { P2P_RANKS = 8, P2P_BLOCKS = 48, P2P_GPU_BLOCKS = 96, P2P_FLAG_BYTES = 128, P2P_PIECE = 32768, P2P_UNIT = 16 };
enum { P2P_BYTES = P2P_BLOCKS * (P2P_FLAG_BYTES + 2 * P2P_PIECE) };

struct p2p_view {
    char *block[P2P_RANKS]; /* by rank */
    uint32_t *piece;        /* [P2P_BLOCKS] this rank's: number of the last piece */
    uint32_t *gave_up;      /* this rank's: not 0 once a wait was too long; nothing waits then */
    uint32_t *absent;       /* pinned host memory: 1 + the rank that did not come */
    int32_t rank, n;
    int32_t blocks;         /* thread blocks of a launch at most; the same on all ranks */
    uint64_t timeout_ns;
};

/* n: units of P2P_UNIT bytes. Return a cudaError_t; p2p_sum_norm -1 where it does not take the shape. */
int p2p_load(void); /* brings the kernels to the GPU, which must not be tried while another rank waits */
int p2p_sum(const struct p2p_view *v, void *buf, size_t n, enum gpu_number type, cudaStream_t stream);
int p2p_sum_norm(const struct p2p_view *v, const struct gpu_sum_norm *a, cudaStream_t stream);
int p2p_gather(const struct p2p_view *v, const void *mine, void *all, size_t n, cudaStream_t stream);

#ifdef __cplusplus
}
#endif

extern
#ifdef __cplusplus
    "C"
#endif
    const struct gpu_comm_maker gpu_comm_p2p;

#endif
