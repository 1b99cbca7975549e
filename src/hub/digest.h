/* digest.h: checksums of files as they arrive. */
#ifndef MINISGL_HUB_DIGEST_H
#define MINISGL_HUB_DIGEST_H
#include "hub/hub.h"

struct digest {
    void *ctx; /* NULL: nothing is computed */
};

/* Begin; size is the whole file's, which git's sum begins with. */
void digest_init(struct digest *d, enum hub_sum kind, size_t size);
void digest_add(struct digest *d, const void *p, size_t n);
void digest_end(struct digest *d, char hex[65]); /* "" for HUB_SUM_NONE; d is released */
void digest_release(struct digest *d);

#endif
