/* layout.h: where the hubs' own tools keep models on disk, so that a model is downloaded once for all of them.
 *
 * Hugging Face (huggingface_hub 0.x and 1.x), under HF_HUB_CACHE:
 *   models--ORG--NAME/refs/REV              the commit that a branch or tag meant
 *   models--ORG--NAME/blobs/SUM             a file by its checksum; SUM.incomplete while it arrives
 *   models--ORG--NAME/snapshots/COMMIT/FILE a link to ../../blobs/SUM
 *   models--ORG--NAME/trees/COMMIT.json     the repository's listing (huggingface_hub 1.x)
 *   .locks/models--ORG--NAME/SUM.lock       held (flock) by who downloads
 * ModelScope (modelscope_hub; SDKs up to 1.37 wrote the two other folders, which are found too), under
 * MODELSCOPE_CACHE: models/ORG--NAME/snapshots/REV/FILE     the file itself; FILE.incomplete while it arrives
 *   .lock/file_SHA256.lock                  held by who downloads; the name is a hash of repository and file
 *   models/ORG/NAME, hub/models/ORG/NAME    with "___" for each dot of NAME
 *
 * Nothing partial is ever found: files get their names when they are whole and checked, and a snapshot gets its
 * config.json last of all. */
#ifndef MINISGL_HUB_LAYOUT_H
#define MINISGL_HUB_LAYOUT_H
#include "base/err.h"
#include "hub/hub.h"

struct layout {
    const struct hub_settings *s;
    const char *name;
    char *cache; /* the whole cache */
    char *root;  /* the model's folder in it */
    const char *revision;
};

/* Whether a text may be a model's name on the hub: NAME (Hugging Face only) or ORG/NAME. */
bool hub_name_valid(const char *name, enum hub_source source);
bool hub_revision_valid(const char *revision);

/* Fill *l for a valid name. -1: no folder can be told, since there is neither a setting nor a home. */
int layout_init(struct layout *l, const struct hub_settings *s, const char *name, struct err *e);
void layout_release(struct layout *l);

/* The folder of a model that is whole as far as `need` goes, malloc'd; NULL: *missing says what is not there, malloc'd.
 */
char *layout_find(const struct layout *l, unsigned need, char **missing);
/* What a folder lacks, malloc'd; NULL: nothing. With a listing sizes count too. */
char *layout_missing(const char *dir, const struct hub_listing *l, unsigned need);

/* Paths of one file; the caller frees them. commit is NULL for ModelScope. */
struct layout_paths {
    char *whole; /* where the checked file lies */
    char *part;  /* where it arrives */
    char *lock;
};
void layout_paths(const struct layout *l, const struct hub_file *f, struct layout_paths *p);
void layout_paths_release(struct layout_paths *p);
char *layout_snapshot(const struct layout *l, const char *commit);

/* Make what a finished download consists of besides its files: the listing, links (config.json last), the ref. Nothing
 * for ModelScope. */
int layout_commit(const struct layout *l, const struct hub_listing *list, const struct hub_file *const *files, size_t n,
                  struct err *e);

int make_folders(const char *path, struct err *e); /* the folders above a file */

#endif
