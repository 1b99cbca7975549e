/* version.h: what `minisgl version` and GET /version say. */
#ifndef MINISGL_VERSION_H
#define MINISGL_VERSION_H

#define MINISGL_VERSION "0.1.0"

#endif
