/* safetensors.h: the tensors of a checkpoint: one model.safetensors, or shards named by model.safetensors.index.json.
 *
 * Files are mapped read-only and never copied. Every rule of the format is checked before a byte of data is used:
 * header size (<= 100,000,000 and within the file), UTF-8 JSON, nesting, known dtypes, shape products, offsets
 * contiguous from 0 without holes or overlap, end - begin == nbytes, header + data == file size exactly, no duplicate
 * names; an index must name files in this folder only (no "/", no ".."), each tensor exactly where it says. */
#ifndef MINISGL_MODEL_SAFETENSORS_H
#define MINISGL_MODEL_SAFETENSORS_H
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct tensor {
    const char *name;  /* lives as long as the checkpoint */
    const char *file;  /* base name of the file it lies in, for messages */
    const char *dtype; /* as written: "BF16", "F16", "F32", "I8", ... */
    int32_t n_dims;
    int64_t dims[8];
    const void *data; /* in the mapping */
    size_t bytes;
};

struct checkpoint; /* the open files */

int checkpoint_open(struct checkpoint **out, const char *dir, struct err *e);
void checkpoint_close(struct checkpoint *c);
const struct tensor *checkpoint_find(const struct checkpoint *c, const char *name); /* NULL when absent */
size_t checkpoint_count(const struct checkpoint *c);
const struct tensor *checkpoint_at(const struct checkpoint *c, size_t i); /* in order of name */
size_t checkpoint_bytes(const struct checkpoint *c);                      /* of all tensors */

/* Parse one file's bytes (tests, fuzzing): calls each(tensor) or answers what is wrong. `file` is for messages. */
int safetensors_parse(const char *data, size_t len, const char *file,
                      int (*each)(void *arg, const struct tensor *t, struct err *e), void *arg, struct err *e);

#endif
