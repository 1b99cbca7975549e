/* model_dir.h: from the options to the model's folder: hub/find.h with the settings that the command line and the
 * environment give. */
#ifndef MINISGL_MODEL_DIR_H
#define MINISGL_MODEL_DIR_H
#include "base/err.h"
#include "hub/hub.h"
#include "opt.h"

/* need: what of the model will be read (enum hub_need, or-ed). A model that is downloaded is refused as soon as its
 * config.json is here, if it could not be run. The folder is malloc'd; NULL: *e. */
char *model_dir(const struct options *o, unsigned need, struct err *e);

#endif
