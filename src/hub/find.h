/* find.h: from what --model says to a folder on this machine. */
#ifndef MINISGL_HUB_FIND_H
#define MINISGL_HUB_FIND_H
#include "hub/download.h"

/* Where a model is looked for, in this order; the first place that has it wins:
 *   1. NULL and "builtin" are the model that comes with the program.
 *   2. An existing folder stands for itself, also when a model of that name exists on the hub. (A revision is refused
 * for these two.)
 *   3. Without a revision: models/NAME beside the program (in the source tree it was built in, then in
 * PREFIX/share/minisgl), when what is needed is there: configs of well-known shapes for dummy weights.
 *   4. ORG/NAME in the hub's cache (layout.h), when it is whole. The hub is not asked whether it has a newer version.
 *   5. ORG/NAME on the hub: it is downloaded into the cache, unless the settings say offline.
 * need: what of a model the caller will read (enum hub_need, or-ed). check: see download.h; may be NULL.
 * The answer is malloc'd; NULL after an error that says where was looked and what to do. */
char *model_find(const char *name, unsigned need, const struct hub_settings *s, hub_check *check, struct err *e);

#endif
