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

/* What --attention-backend says of prompts and of decodes; on GPUs. */
bool dev_prefill_cudnn(const char *option);
bool dev_decode_fa(const char *option);

#endif
