/* selftest.h: a device against the oracle: every operator on random data over odd shapes, and a small model step by step.
 *
 * The oracle is the CPU maker with the instruction set `ref` (plain loops, sums in double), given the same numbers: what is poked is
 * first rounded to the dtype that the device keeps. The error of a case is |out - ref| / |ref|, over all numbers of the case; a
 * NaN never passes. Bounds are by dtype: f32 5e-5, f16 4e-3, bf16 2e-2. Sampled tokens must be equal.
 * And the memory that a device says was taken must not be more than it had planned. */
#ifndef MINISGL_DEV_SELFTEST_H
#define MINISGL_DEV_SELFTEST_H
#include "dev/dev.h"

#include <stdio.h>

/* args->prefill_cudnn: where cuDNN is not to be had that is an error; else its part is left out, and that is said.
 * Prints one line an operator: cases, worst error, the bound, the worst case. Returns how many cases failed; -1: *e (the device broke). */
int dev_selftest(const struct dev_maker *m, const struct dev_args *args, FILE *out, struct err *e);

#endif
