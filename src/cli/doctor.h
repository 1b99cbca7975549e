/* doctor.h: what `minisgl doctor` found out, between the parts that find out and the two that tell it. */
#ifndef MINISGL_CLI_DOCTOR_H
#define MINISGL_CLI_DOCTOR_H
#include "dev/open.h"
#include "engine/fit.h"
#include "formats.h"
#include "hw/bandwidth.h"
#include "hw/gpu.h"
#include "hw/host.h"
#include "model/config.h"
#include "opt.h"

enum { DOCTOR_DEGREES = 4, DOCTOR_ADVICE_MAX = 32 };

/* One tensor-parallel degree. */
struct doctor_degree {
    int32_t n_ranks;
    bool divides, fits;
    char why[256];  /* divides is false: what does not divide */
    struct fit fit; /* when it divides, bytes of a rank */
    size_t needed, had;
    size_t longest; /* longest sequence that would fit; at most what the model was made for */
    double rate;    /* tokens a second of one stream that the measured bandwidth allows; 0: not known (GPUs) */
};

/* All-reduce between ranks of one process: the median of many. */
enum { DOCTOR_SMALL = 8 << 10, DOCTOR_LARGE = 4 << 20 /* bytes */ };
struct doctor_ranks {
    int n;               /* 0: not measured */
    double small, large; /* seconds; 0: not measured */
};

struct doctor {
    const struct options *o;
    struct host host;
    struct gpus gpus;
    struct bandwidth bandwidth; /* read 0: not measured */
    struct doctor_ranks ranks;
    const struct dev_maker *maker; /* what this program computes on here */
    char why_cpu[600];             /* why it is not a GPU; empty: it is */
    char mpirun[160];              /* what `mpirun --version` says first; empty: not found */
    char isa[32];                  /* of the CPU kernels */
    int cuda_built;                /* of the CUDA backend, 1000 * major + 10 * minor; 0: this build has none */
    struct dev_library library[DEV_LIBRARIES]; /* with GPUs */
    int n_libraries;
    bool on_gpu;                   /* degrees are counted for GPUs */
    struct config config;
    struct formats formats;
    int32_t max_len;
    struct doctor_degree degree[DOCTOR_DEGREES];
    int n_advice;
    char advice[DOCTOR_ADVICE_MAX][400]; /* what is wrong or could be better: what was found and what to do */
};

void doctor_advise(struct doctor *d);
void doctor_page(const struct doctor *d);
void doctor_json(const struct doctor *d);

/* Measure n (a power of two) ranks; a measurement that fails leaves zeros. */
void doctor_measure_ranks(struct doctor_ranks *r, int n);

#endif
