/* Media types by file name: a built-in table of what the web serves, then /etc/mime.types where it is there. */
#ifndef GATEHOUSE_SITE_MIME_H
#define GATEHOUSE_SITE_MIME_H

#include "base/span.h"

/* Reads /etc/mime.types (or another file of that form) once, before fronts start. A file that is not there is no error.
 * */
void mime_load(const char *path);
void mime_free(void);

/* The Content-Type for a file name, with charset=utf-8 for text: a static string or one of mime_load()'s.
 * application/octet-stream where nothing matches. The extension is matched whatever its case. */
const char *mime_type(struct span file_name);

#endif
