/* cudnn.h: attention of prompt chunks by NVIDIA's cuDNN, where its shared library is found. One execution plan a window size is made
 * at load, for up to CUDNN_SEQS chunks of any length; what a step has is read on the device (struct chunk_lists), so a run needs no
 * value from the host and may be captured. Needs cuDNN 9.10.2 or later and a GPU of compute capability 9.0 or later. No header of cuDNN
 * is needed to build. */
#ifndef MINISGL_DEV_CUDA_CUDNN_H
#define MINISGL_DEV_CUDA_CUDNN_H
#include "dev/cuda/kernel.h"

enum { CUDNN_OLDEST = 91002 }; /* its version: 9.10.2 */

struct cudnn;      /* the library's handle on one stream */
struct cudnn_plan; /* the computation for one window size */

/* -1 and why when there is no library of a usable version. */
int cudnn_open(struct cudnn **out, cudaStream_t stream, struct err *e);
void cudnn_close(struct cudnn *c);
/* "9.19.0" */
const char *cudnn_version(const struct cudnn *c);

struct cudnn_shape {
    enum dtype a;     /* of q, k, v and out: bf16 or f16 */
    int32_t n_heads, n_kv_heads, head_dim, page_size, n_pages, table_len, max_tokens;
    int32_t window;   /* 0: none */
    float scale;
    int64_t ldq, ldo; /* elements from token to token */
};

/* -1 and why when the library has no engine for the shape. */
int cudnn_plan_new(struct cudnn_plan **out, struct cudnn *c, const struct cudnn_shape *s, struct err *e);
void cudnn_plan_free(struct cudnn_plan *p);
size_t cudnn_plan_workspace(const struct cudnn_plan *p);

/* q, out: of the step's first token; k, v: of page 0. All on the device, aligned to 16 bytes. Returns cuDNN's status, 0: enqueued. */
struct cudnn_run {
    const void *q, *k, *v;
    void *out, *workspace;
    struct chunk_lists lists;
};
int cudnn_run(struct cudnn_plan *p, const struct cudnn_run *r);

#endif
