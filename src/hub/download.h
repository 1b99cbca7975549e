/* download.h: a model from a hub into the cache. */
#ifndef MINISGL_HUB_DOWNLOAD_H
#define MINISGL_HUB_DOWNLOAD_H
#include "hub/layout.h"

/* Judges config.json (a path) before anything large is downloaded; -1: the model cannot be run, *e says why. */
typedef int hub_check(const char *config, struct err *e);

/* Download what is needed of a model and not in the cache yet; gives its folder, malloc'd. NULL: *e. check may be NULL.
 */
char *hub_download(const struct layout *l, unsigned need, hub_check *check, struct err *e);

#endif
