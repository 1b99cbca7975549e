/* find.h: from what --model says to a folder on this machine. */
#ifndef MINISGL_HUB_FIND_H
#define MINISGL_HUB_FIND_H
#include "base/err.h"

/* An existing folder stands for itself. Any other name, and NULL or "builtin" always, is looked up as models/NAME
 * beside the program: in the source tree it was built in, then in PREFIX/share/minisgl. (Those folders hold the
 * built-in model, and configs of well-known shapes for dummy weights.) The answer is malloc'd; NULL after an error that
 * names the places looked at. */
char *model_find(const char *name, struct err *e);

#endif
