/*
 * A line of the file; the number of optional fields before " - " varies:
 *
 *     36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 *                root  at                          type
 *
 * In paths space, TAB, LF and backslash are written as \040, \011, \012, \134.
 */
#include "process/mounts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_octal(const char *at)
{
    return at[0] >= '0' && at[0] <= '3' && at[1] >= '0' && at[1] <= '7' && at[2] >= '0' && at[2] <= '7';
}

static void unescape(char *text)
{
    char *to = text;

    for (const char *from = text; *from != '\0'; from++) {
        if (from[0] == '\\' && is_octal(from + 1)) {
            *to++ = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
            from += 3;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
}

static bool read_line(char *line, struct mount *mount)
{
    char *separator = strstr(line, " - ");
    char *words[5], *rest = line;

    if (separator == NULL)
        return false;
    *separator = '\0';
    for (int i = 0; i < 5; i++)
        if ((words[i] = strsep(&rest, " ")) == NULL)
            return false;
    unescape(words[3]);
    unescape(words[4]);
    char *type = separator + 3;
    type[strcspn(type, " \n")] = '\0';
    snprintf(mount->root, sizeof mount->root, "%s", words[3]);
    snprintf(mount->at, sizeof mount->at, "%s", words[4]);
    snprintf(mount->type, sizeof mount->type, "%s", type);
    return true;
}

static bool is_below(const char *path, const char *directory)
{
    size_t len = strlen(directory);

    if (len > 0 && directory[len - 1] == '/')
        len--;
    return strncmp(path, directory, len) == 0 && (path[len] == '/' || path[len] == '\0');
}

bool mounts_find(const char *path, const char *type, struct mount *mount_out)
{
    FILE *from = fopen("/proc/self/mountinfo", "re");
    char *line = NULL;
    size_t room = 0;
    bool is_found = false;
    struct mount mount;

    if (from == NULL)
        return false;
    while (getline(&line, &room, from) > 0) {
        if (!read_line(line, &mount) || (type != NULL && strcmp(type, mount.type) != 0))
            continue;
        if (path != NULL && !is_below(path, mount.at))
            continue;
        if (is_found && path != NULL && strlen(mount.at) < strlen(mount_out->at))
            continue; /* of equally long ones the later covers the earlier */
        *mount_out = mount;
        is_found = true;
    }
    free(line);
    fclose(from);
    return is_found;
}
