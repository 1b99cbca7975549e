/* open.h: which device the program computes on. */
#ifndef MINISGL_DEV_OPEN_H
#define MINISGL_DEV_OPEN_H
#include "dev/dev.h"

/* The maker for `device`: "cpu", "cuda" or "auto". The CUDA maker lies in a shared object, minisgl_cuda.so, beside the program or in
 * ../lib/minisgl from there; it is opened once and stays open while the process lives. It is refused when its ABI number or its
 * build id (of the contract's headers) is not this program's.
 * "auto" takes CUDA where a GPU answers, else the CPU; `why` (n bytes) then holds why, in one line, and is "" otherwise.
 * -1: "cuda" was asked for and is not to be had; *e says why. */
int dev_choose(const struct dev_maker **out, const char *device, char *why, size_t n, struct err *e);

/* The CUDA that minisgl_cuda.so was built for, 1000 * major + 10 * minor; 0: it is not there, or does not open. */
int dev_cuda_built(void);

/* A library that the CUDA backend opens where it is wanted. */
struct dev_library {
    char name[16];    /* "NCCL", "cuDNN" */
    bool found;       /* and new enough */
    char version[32]; /* "2.28.9"; empty: not known */
    char path[400];   /* of the file; empty: none */
    char why[400];    /* when it is not found */
};
enum { DEV_LIBRARIES = 2 };

/* NCCL and cuDNN as minisgl_cuda.so finds them, or 0 where there is no backend to ask. Opens them, which takes a moment. */
int dev_cuda_libraries(struct dev_library out[DEV_LIBRARIES]);

/* What --attention-backend says of prompts and of decodes; on GPUs. */
bool dev_prefill_cudnn(const char *option);
bool dev_decode_fa(const char *option);

#endif
