/*
 * exec(2) says one word for many causes: EACCES for a missing x-bit, a closed directory above, a noexec mount, or any
 * of these of the interpreter. So the questions that can lead to the errno at hand are put to the file, in the order in
 * which a user would mend them; when all answers are good, to its interpreter.
 *
 * Permissions are judged by mode bits, as the kernel does it. What has an access control list is passed over: its bits
 * do not tell.
 */
#include "process/examine.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/memory.h"
#include "process/mounts.h"
#include "process/users.h"

enum {
    HEAD = 256, /* what the kernel reads of a file to know its kind: BINPRM_BUF_SIZE */
    MOST_INTERPRETERS = 5,
};

/* Who the program was to run as. */
struct who {
    uid_t uid;
    gid_t gid;
    gid_t *groups; /* to be freed */
    size_t n_groups;
    char name[64];
};

struct examination {
    char *text;
    size_t size;
    size_t prefix; /* what stands in text already: "its interpreter: " */
    int error;
    int depth; /* 0: the program itself; 1: its interpreter */
    struct who who;
};

/* The first bytes of a file, zeroes behind them. */
struct head {
    unsigned char bytes[HEAD + 1];
    size_t len;
};

static bool __attribute__((format(printf, 2, 3))) say(struct examination *e, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(e->text + e->prefix, e->size - e->prefix, format, arguments);
    va_end(arguments);
    return true;
}

/* What is said from now on is about something that belongs to what was spoken of. */
static void __attribute__((format(printf, 2, 3))) turn_to(struct examination *e, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(e->text + e->prefix, e->size - e->prefix, format, arguments);
    va_end(arguments);
    e->prefix += strlen(e->text + e->prefix);
    e->depth++;
}

/* ---- permissions ---- */

static void name_user(char *name, size_t size, uid_t uid, const struct config_user *known)
{
    if (known != NULL && known->name != NULL && known->uid == uid)
        snprintf(name, size, "%s", known->name);
    else if (uid == 0)
        snprintf(name, size, "root");
    else
        snprintf(name, size, "%u", (unsigned)uid);
}

static void find_who(struct who *who, const struct config_user *user)
{
    *who = (struct who){.uid = geteuid(), .gid = getegid()};
    if (users_must_change(user)) {
        struct user_groups groups = users_groups(user);

        who->uid = user->uid;
        who->gid = user->gid;
        who->n_groups = groups.n;
        who->groups = memory_zeroed(groups.n + 1, sizeof *who->groups);
        memcpy(who->groups, groups.at, groups.n * sizeof *who->groups);
    } else {
        int n = getgroups(0, NULL);

        who->groups = memory_zeroed((size_t)(n > 0 ? n : 0) + 1, sizeof *who->groups);
        n = n > 0 ? getgroups(n, who->groups) : 0;
        who->n_groups = n > 0 ? (size_t)n : 0;
    }
    name_user(who->name, sizeof who->name, who->uid, user);
}

static bool is_in_group(const struct who *who, gid_t gid)
{
    for (size_t i = 0; i < who->n_groups; i++)
        if (who->groups[i] == gid)
            return true;
    return who->gid == gid;
}

/* The bits that are theirs: 4 read, 2 write, 1 execute. */
static unsigned bits_of(const struct who *who, const struct stat *about)
{
    if (who->uid == about->st_uid)
        return about->st_mode >> 6 & 7;
    return (is_in_group(who, about->st_gid) ? about->st_mode >> 3 : about->st_mode) & 7;
}

static bool may_execute(const struct who *who, const struct stat *about)
{
    if (who->uid == 0)
        return S_ISDIR(about->st_mode) || (about->st_mode & 0111) != 0;
    return (bits_of(who, about) & 1) != 0;
}

static bool has_access_list(const char *path)
{
    return getxattr(path, "system.posix_acl_access", NULL, 0) > 0;
}

static bool is_closed(const struct who *who, const char *path, const struct stat *about)
{
    return !may_execute(who, about) && !has_access_list(path);
}

/* Is one of the directories above `path` closed to them? */
static bool find_closed_directory(struct examination *e, const char *path)
{
    char directory[PATH_MAX], owner[64];
    struct stat about;

    for (const char *slash = path; (slash = strchr(slash + 1, '/')) != NULL;) {
        snprintf(directory, sizeof directory, "%.*s", (int)(slash - path), path);
        if (stat(directory, &about) != 0)
            return false;
        if (!is_closed(&e->who, directory, &about))
            continue;
        name_user(owner, sizeof owner, about.st_uid, NULL);
        return say(e, "directory %s may not be entered by user %s (its mode is %04o, its owner %s); chmod +x it",
                   directory, e->who.name, (unsigned)about.st_mode & 07777, owner);
    }
    return false;
}

static bool find_noexec(struct examination *e, const char *path)
{
    struct statvfs system;
    struct mount mount;

    if (statvfs(path, &system) != 0 || (system.f_flag & ST_NOEXEC) == 0)
        return false;
    if (mounts_find(path, NULL, &mount))
        return say(e, "its file system is mounted noexec at %s; move it, or mount that with exec", mount.at);
    return say(e, "its file system is mounted noexec; move it, or mount that with exec");
}

static ssize_t read_head(const char *path, struct head *head);

/* A script is opened once more, by its interpreter. */
static bool must_be_readable(const struct examination *e, const char *path, const struct stat *about)
{
    struct head head;

    return e->who.uid != 0 && (bits_of(&e->who, about) & 4) == 0 && read_head(path, &head) >= 2 &&
           memcmp(head.bytes, "#!", 2) == 0;
}

/* After EACCES: is it the path or the file? */
static bool find_denied(struct examination *e, const char *path)
{
    char real[PATH_MAX], owner[64];
    struct stat about;

    if (find_closed_directory(e, path))
        return true;
    if (realpath(path, real) == NULL || stat(real, &about) != 0)
        return false;
    if (find_closed_directory(e, real)) /* above what a link leads to */
        return true;
    if (!S_ISREG(about.st_mode))
        return say(e, S_ISDIR(about.st_mode) ? "is a directory, no regular file" : "is no regular file");
    if (is_closed(&e->who, real, &about)) {
        name_user(owner, sizeof owner, about.st_uid, NULL);
        return say(e, "no execute permission for user %s (its mode is %04o, its owner %s); chmod %s it", e->who.name,
                   (unsigned)about.st_mode & 07777, owner, must_be_readable(e, real, &about) ? "a+rx" : "+x");
    }
    return find_noexec(e, real);
}

/* ---- scripts ---- */

static bool examine_file(struct examination *e, const char *path);

/* The interpreter that the "#!" line names, as the kernel reads it (fs/binfmt_script.c); false: it refuses the line. */
static bool read_interpreter(const struct head *head, char interpreter[HEAD + 1])
{
    const char *line = (const char *)head->bytes;
    const char *at = line + 2 + strspn(line + 2, " \t");
    size_t len = strcspn(at, " \t\n");

    if (at + len >= line + HEAD)
        return false;
    snprintf(interpreter, HEAD + 1, "%.*s", (int)len, at);
    return true;
}

static bool say_carriage_return(struct examination *e, const char *at)
{
    return say(e, "its \"#!\" line ends in %s, so the interpreter is not found; save the file with LF line ends",
               at[1] == '\0' ? "CR LF" : "CR");
}

static bool examine_script(struct examination *e, const struct head *head)
{
    char name[HEAD + 1];
    struct stat about;

    if (!read_interpreter(head, name))
        return say(e, "its \"#!\" line is too long: the kernel reads %d bytes of it; shorten it", HEAD);
    if (name[0] == '\0')
        return say(e, "its \"#!\" line names no interpreter; write one, as in \"#!/bin/sh\"");
    if (strchr(name, '\r') != NULL)
        return say_carriage_return(e, strchr(name, '\r'));
    if (name[0] != '/' && e->error == ENOENT)
        return say(e, "interpreter \"%s\" of its \"#!\" line is no absolute path; write \"#!/usr/bin/env %s\"", name,
                   name);
    if (stat(name, &about) != 0 && errno == e->error)
        return say(e, "interpreter \"%s\" of its \"#!\" line is not there%s%s; install it or correct the line", name,
                   e->error == ENOENT ? "" : ": ", e->error == ENOENT ? "" : strerror(e->error));
    if (e->depth >= MOST_INTERPRETERS)
        return say(e, "too many scripts have a script as their interpreter");
    turn_to(e, "interpreter \"%s\" of its \"#!\" line: ", name);
    return examine_file(e, name);
}

/* ---- ELF programs ---- */

static const struct {
    unsigned machine;
    unsigned char class, data; /* 0: any */
    const char *name;
} machines[] = {
    {EM_386, 0, 0, "i386"},
    {EM_X86_64, ELFCLASS32, 0, "x32"},
    {EM_X86_64, 0, 0, "x86_64"},
    {EM_ARM, 0, 0, "arm"},
    {EM_AARCH64, 0, 0, "aarch64"},
    {EM_RISCV, ELFCLASS32, 0, "riscv32"},
    {EM_RISCV, 0, 0, "riscv64"},
    {EM_PPC, 0, 0, "ppc"},
    {EM_PPC64, 0, ELFDATA2LSB, "ppc64le"},
    {EM_PPC64, 0, 0, "ppc64"},
    {EM_S390, 0, 0, "s390x"},
    {EM_MIPS, ELFCLASS32, ELFDATA2LSB, "mipsel"},
    {EM_MIPS, ELFCLASS32, 0, "mips"},
    {EM_MIPS, 0, ELFDATA2LSB, "mips64el"},
    {EM_MIPS, 0, 0, "mips64"},
    {EM_LOONGARCH, 0, 0, "loongarch64"},
    {EM_SPARCV9, 0, 0, "sparc64"},
};

static unsigned short_at(const struct head *head, size_t offset)
{
    const unsigned char *at = head->bytes + offset;

    return head->bytes[EI_DATA] == ELFDATA2MSB ? (unsigned)(at[0] << 8 | at[1]) : (unsigned)(at[1] << 8 | at[0]);
}

static unsigned machine_of(const struct head *head)
{
    return short_at(head, offsetof(Elf64_Ehdr, e_machine)); /* at the same place in both classes */
}

static void name_machine(char *name, size_t size, const struct head *head)
{
    unsigned machine = machine_of(head);

    for (size_t i = 0; i < sizeof machines / sizeof *machines; i++) {
        if (machines[i].machine != machine || (machines[i].class != 0 && machines[i].class != head->bytes[EI_CLASS]))
            continue;
        if (machines[i].data != 0 && machines[i].data != head->bytes[EI_DATA])
            continue;
        snprintf(name, size, "%s", machines[i].name);
        return;
    }
    snprintf(name, size, "a machine of the unknown type %u", machine);
}

static ssize_t read_head(const char *path, struct head *head)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    ssize_t n;

    memset(head, 0, sizeof *head);
    n = fd >= 0 ? pread(fd, head->bytes, HEAD, 0) : -1;
    if (fd >= 0)
        close(fd);
    head->len = n > 0 ? (size_t)n : 0;
    return n;
}

static bool is_elf(const struct head *head)
{
    return head->len >= SELFMAG && memcmp(head->bytes, ELFMAG, SELFMAG) == 0;
}

/* Where the program interpreter's path is in the file; false: there is none, or the file is of the other byte order. */
static bool find_segment(int fd, const struct head *head, uint64_t *offset_out, uint64_t *len_out)
{
    bool is_64 = head->bytes[EI_CLASS] == ELFCLASS64;
    Elf64_Ehdr whole;
    Elf32_Ehdr half;

    memcpy(&whole, head->bytes, sizeof whole);
    memcpy(&half, head->bytes, sizeof half);
    unsigned n = is_64 ? whole.e_phnum : half.e_phnum;
    uint64_t at = is_64 ? whole.e_phoff : half.e_phoff;
    for (unsigned i = 0; i < n && i < 64; i++) {
        Elf64_Phdr segment;
        Elf32_Phdr small;
        size_t size = is_64 ? sizeof segment : sizeof small;

        if (pread(fd, is_64 ? (void *)&segment : (void *)&small, size, (off_t)(at + i * size)) != (ssize_t)size)
            return false;
        *offset_out = is_64 ? segment.p_offset : small.p_offset;
        *len_out = is_64 ? segment.p_filesz : small.p_filesz;
        if ((is_64 ? segment.p_type : small.p_type) == PT_INTERP)
            return true;
    }
    return false;
}

/* The program interpreter ("/lib64/ld-linux-x86-64.so.2") that an ELF file asks for; false: none. */
static bool read_loader(const char *path, const struct head *head, char loader[PATH_MAX])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    uint64_t offset = 0, len = 0;
    bool is_there = fd >= 0 && find_segment(fd, head, &offset, &len) && len > 0 && len < PATH_MAX;

    if (is_there)
        is_there = pread(fd, loader, (size_t)len, (off_t)offset) == (ssize_t)len;
    if (is_there)
        loader[len] = '\0';
    if (fd >= 0)
        close(fd);
    return is_there;
}

/* After ENOEXEC, or ELIBBAD when it is a loader. */
static bool say_foreign(struct examination *e, const struct head *head)
{
    char theirs[64], ours[64];
    struct head own;
    unsigned type = short_at(head, offsetof(Elf64_Ehdr, e_type));

    if (read_head("/proc/self/exe", &own) > 0 &&
        (machine_of(head) != machine_of(&own) || head->bytes[EI_CLASS] != own.bytes[EI_CLASS] ||
         head->bytes[EI_DATA] != own.bytes[EI_DATA])) {
        name_machine(theirs, sizeof theirs, head);
        name_machine(ours, sizeof ours, &own);
        return say(e, "is built for %s, this machine is %s; build or install it for that", theirs, ours);
    }
    if (type != ET_EXEC && type != ET_DYN)
        return say(e, "is an ELF file, but no program%s", type == ET_REL ? ": an object file, to be linked first" : "");
    return say(e, "is a damaged ELF file; copy or build it again");
}

static bool examine_elf(struct examination *e, const char *path, const struct head *head)
{
    char loader[PATH_MAX];
    struct stat about;
    bool is_refused = e->error == ENOEXEC || e->error == ELIBBAD;

    if (head->len < sizeof(Elf32_Ehdr))
        return say(e, "is an ELF file that is cut short; copy or build it again");
    if (e->depth < MOST_INTERPRETERS && read_loader(path, head, loader)) {
        if (stat(loader, &about) != 0 && errno == e->error)
            return say(e, "its ELF interpreter %s is not there; is it built for this system?", loader);
        if (e->error != ENOEXEC) {
            turn_to(e, "its ELF interpreter %s: ", loader);
            return examine_file(e, loader);
        }
    }
    return is_refused && say_foreign(e, head);
}

/* ---- files that are neither ---- */

/* Is it the "#!" that is not where it must be? */
static bool has_late_interpreter(const struct head *head)
{
    const char *text = (const char *)head->bytes;
    size_t blank = strspn(text, " \t\r\n");

    return blank > 0 && strncmp(text + blank, "#!", 2) == 0;
}

/* Is it one of a later line, behind comments and empty lines? The last character of the head may be cut off. */
static bool has_interpreter_below(const struct head *head)
{
    const char *line = (const char *)head->bytes;

    while (line[0] == '#' || line[0] == '\n' || line[0] == '\r') {
        if (strncmp(line, "#!", 2) == 0)
            return line != (const char *)head->bytes;
        line = strchr(line, '\n');
        if (line == NULL)
            return false;
        line++;
    }
    return false;
}

/* Every other byte of the "#!" is zero. */
static bool is_wide_script(const struct head *head)
{
    return head->len >= 4 && (memcmp(head->bytes, "#\0!\0", 4) == 0 || memcmp(head->bytes, "\0#\0!", 4) == 0);
}

static bool say_kind(struct examination *e, const struct head *head)
{
    static const struct {
        const char *bytes;
        size_t len;
        const char *what;
    } kinds[] = {
        {"\xef\xbb\xbf", 3, "begins with a byte order mark; save it without"},
        {"\xff\xfe", 2, "is UTF-16 text, with a byte order mark; save it as UTF-8, without"},
        {"\xfe\xff", 2, "is UTF-16 text, with a byte order mark; save it as UTF-8, without"},
        {"\x1f\x8b", 2, "is compressed by gzip; gunzip it"},
        {"PK\3\4", 4, "is a zip or jar archive; unpack it, or give it an interpreter (of a jar: java -jar)"},
        {"\0asm", 4, "is WebAssembly, which needs a runtime of its own; run that, with it as the argument"},
        {"MZ", 2, "is a program for Windows; build or install it for this system"},
        {"\xcf\xfa\xed\xfe", 4, "is a program for macOS; build or install it for this system"},
        {"\xca\xfe\xba\xbe", 4, "is a program for macOS, or a Java class; build or install it for this system"},
    };

    if (head->len == 0)
        return say(e, "is empty, so it is neither a program nor a script with a \"#!\" first line");
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (head->len >= kinds[i].len && memcmp(head->bytes, kinds[i].bytes, kinds[i].len) == 0)
            return say(e, "%s", kinds[i].what);
    if (is_wide_script(head))
        return say(e, "is UTF-16 text; save it as UTF-8, without a byte order mark");
    if (has_late_interpreter(head))
        return say(e, "its \"#!\" is not the very first thing in the file; remove the white space before it");
    if (has_interpreter_below(head))
        return say(e, "its \"#!\" is not the very first thing in the file; remove the lines before it");
    return say(e, "is neither a program of this system nor a script with a \"#!\" first line");
}

static bool examine_file(struct examination *e, const char *path)
{
    struct head head;

    if (e->error == EACCES && find_denied(e, path))
        return true;
    if (read_head(path, &head) < 0)
        return false;
    if (is_elf(&head))
        return examine_elf(e, path, &head);
    if (head.len >= 2 && memcmp(head.bytes, "#!", 2) == 0)
        return examine_script(e, &head);
    return e->error == ENOEXEC && say_kind(e, &head);
}

bool examine_program(char *text, size_t size, const struct spawn *spawn, int error)
{
    struct examination e = {.text = text, .size = size, .error = error};
    struct stat about;
    bool is_found;

    find_who(&e.who, spawn->user);
    if (stat(spawn->program, &about) != 0 && errno == error)
        is_found = error == EACCES ? find_closed_directory(&e, spawn->program)
                                   : say(&e, "%s; correct the path or create the file", strerror(error));
    else
        is_found = examine_file(&e, spawn->program);
    free(e.who.groups);
    return is_found;
}

bool examine_directory(char *text, size_t size, const struct spawn *spawn, const char *path)
{
    struct examination e = {.text = text, .size = size, .error = EACCES};
    char whole[PATH_MAX + 1];

    find_who(&e.who, spawn->user);
    snprintf(whole, sizeof whole, "%s/", path);
    bool is_found = find_closed_directory(&e, whole);
    free(e.who.groups);
    return is_found;
}
