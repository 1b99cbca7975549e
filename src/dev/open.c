/* open.c: see open.h. Called by the main thread before others start. The handle of the shared object is kept by the loader alone: it is
 * never closed, since the driver's threads may be in it until the process ends. */
#include "dev/open.h"

#include "base/file.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *open_object(char *why, size_t n) {
    char *path = program_library("minisgl_cuda.so");
    void *lib = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!path) snprintf(why, n, "minisgl_cuda.so is not beside the program (`make cuda` builds it)");
    else if (!lib) snprintf(why, n, "%s", dlerror());
    free(path);
    return lib;
}

static const struct dev_maker *check_maker(const struct dev_maker *m, char *why, size_t n) {
    if (m->abi == DEV_ABI && !strcmp(m->build_id, dev_cpu.build_id)) return m;
    snprintf(why, n, "minisgl_cuda.so was built from other sources (ABI %u, build %s) than this program (ABI %u, build %s): rebuild both",
             m->abi, m->build_id, DEV_ABI, dev_cpu.build_id);
    return NULL;
}

static const struct dev_maker *find_cuda(char *why, size_t n) {
    if (!dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL)) { /* before the large libraries are loaded for nothing */
        snprintf(why, n, "no NVIDIA driver is installed");
        return NULL;
    }
    void *lib = open_object(why, n);
    if (!lib) return NULL;
    const struct dev_maker *(*get)(char *, size_t);
    *(void **)&get = dlsym(lib, "minisgl_device");
    if (!get) {
        snprintf(why, n, "minisgl_cuda.so is no device backend");
        return NULL;
    }
    const struct dev_maker *m = get(why, n);
    return m ? check_maker(m, why, n) : NULL;
}

int dev_choose(const struct dev_maker **out, const char *device, char *why, size_t n, struct err *e) {
    why[0] = 0;
    *out = &dev_cpu;
    if (!strcmp(device, "cpu")) return 0;
    const struct dev_maker *m = find_cuda(why, n);
    if (m) *out = m;
    if (m || strcmp(device, "cuda")) return 0;
    return err_input(e, "--device cuda: CUDA is not to be had here: %s; --device auto computes on the CPU then", why);
}

int dev_cuda_built(void) {
    char why[64];
    void *lib = open_object(why, sizeof why);
    const int *version = lib ? dlsym(lib, "minisgl_cuda_built") : NULL;
    return version ? *version : 0;
}

int dev_cuda_libraries(struct dev_library out[DEV_LIBRARIES]) {
    char why[64];
    void *lib = open_object(why, sizeof why);
    int (*ask)(struct dev_library *, size_t) = NULL;
    if (lib) *(void **)&ask = dlsym(lib, "minisgl_cuda_libraries");
    return ask ? ask(out, sizeof *out) : 0;
}

bool dev_prefill_cudnn(const char *option) { return !strncmp(option, "cudnn", 5); }

bool dev_decode_fa(const char *option) { return !strcmp(option, "fa") || !strcmp(option, "cudnn,fa"); }
