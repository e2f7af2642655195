/*
 * Directory listings: for people as HTML, sortable by links, safe against any name; for programs as JSON.
 *
 *     /dir/                      sorted by name, directories first
 *     /dir/?sort=size&order=desc sort = name | size | time; order = asc | desc
 *     /dir/?json                 [{"name":"a.txt","type":"file","size":5,"modified":"2026-01-02T03:04:05Z"}, ...]
 *
 * In JSON a directory has "type":"directory" and no size. A name that is not UTF-8 has U+FFFD in place of what is not,
 * there as on the page; the page's links have the bytes. Times are UTC.
 */
#ifndef GATEHOUSE_SITE_LISTING_H
#define GATEHOUSE_SITE_LISTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "base/buffer.h"
#include "base/span.h"

enum { LISTING_MOST = 2000 }; /* names that are looked at; of a larger directory the page says that it is not whole */

struct listing_entry {
    char *name; /* any bytes but "/" and NUL */
    bool is_directory;
    uint64_t size; /* of a file */
    time_t modified;
};

/* All-zero is an empty one. */
struct listing {
    struct listing_entry *at;
    size_t n;
    bool is_cut; /* the directory has more names than LISTING_MOST: some were not looked at. Not said in JSON */
};

enum listing_sort {
    LISTING_NAME,
    LISTING_SIZE,
    LISTING_TIME,
};

struct listing_view {
    bool is_json;
    enum listing_sort sort;
    bool is_descending;
};

/* What a query asks for. What is not understood of it is ignored; of what is given twice, the last counts. "json" may
 * stand alone, have an empty value, or 1. Pure. */
struct listing_view listing_view(struct span query);

/*
 * Reads the directory, in no order. dir_fd stays the caller's and may be O_PATH. Listed are regular files and
 * directories that `shows` returns true for: it is asked first, by name, and of what it refuses no link is followed.
 * Blocks as long as the file system takes. Returns 0, or -errno. What *listing was is forgotten, not freed; after an
 * error it is empty.
 */
int listing_read(struct listing *listing, int dir_fd, bool (*shows)(void *arg, const char *name), void *arg);
void listing_free(struct listing *listing);

/*
 * Appends the page, or the JSON array, of the directory at `path`: as uri_read() gives it, it begins with one "/" and
 * ends in "/". Sorts the listing: directories first, then by the key, equals by name. Names go by their bytes.
 * Directories have no size and are sorted by name where files are by size. Pure.
 */
void listing_write(struct buffer *to, struct listing *listing, const struct listing_view *view, struct span path);

/* The Content-Type of what listing_write() writes. */
struct span listing_type(const struct listing_view *view);

#endif
