/* fuzz_safetensors.c: any bytes as a safetensors file. What is accepted must keep the format's promises: the data of
 * every tensor lies in the file, and all of them together are the whole of it. */
#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

struct file {
    const char *data;
    size_t len, bytes;
};

static int each(void *arg, const struct tensor *t, struct err *e) {
    struct file *f = arg;
    const char *d = t->data;
    (void)e;
    if (!t->name || !t->dtype || t->n_dims < 0 || t->n_dims > 8) abort();
    if (d < f->data || t->bytes > f->len || (size_t)(d - f->data) > f->len - t->bytes) abort();
    f->bytes += t->bytes;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct file f = {.data = (const char *)data, .len = n};
    struct err e = {0};
    if (safetensors_parse(f.data, n, "fuzz", each, &f, &e)) {
        if (e.kind != ERR_INPUT || !*e.text) abort();
        return 0;
    }
    uint64_t header;
    memcpy(&header, data, 8);
    if (8 + header + f.bytes != n) abort();
    return 0;
}
