/* owned.h: memory that belongs to a struct weights: dummy weights, and copies of tensors that lie unaligned. */
#ifndef MINISGL_MODEL_OWNED_H
#define MINISGL_MODEL_OWNED_H
#include "model/weights.h"

/* n bytes of zeros, page-aligned, with huge pages where the system gives them; untouched pages cost nothing yet.
 * NULL when the machine refuses so much. */
void *owned_add(struct weights *w, size_t n);
void owned_release(struct weights *w);

#endif
