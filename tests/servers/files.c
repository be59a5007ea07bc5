/* A server that makes files and says what they are. With "n" it says what POSIX fixes, so that a
 * native run gives the same lines; with "r" also what only replicas have in common. */
#include "server.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

static void put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) < 0 || close(fd) != 0)
        say("cannot write %s\n", path);
}

/* Milliseconds between the file's time and now. */
static int is_recent(const struct stat *file)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long age = (now.tv_sec - file->st_mtim.tv_sec) * 1000 +
               (now.tv_nsec - file->st_mtim.tv_nsec) / 1000000;
    return age > -1000 && age < 60000;
}

static void fixed(void)
{
    const char *names[] = {"zebra", "ape", "mule", "bee", "yak", "cat"};
    mkdir("zoo", 0755);
    for (unsigned at = 0; at < 6; at++) {
        char path[64];
        snprintf(path, sizeof path, "zoo/%s", names[at]);
        put(path, names[at]);
    }
    struct stat first, second, other;
    int a = stat("zoo/ape", &first), b = lstat("zoo/ape", &second), c = stat("zoo/bee", &other);
    say("stat %d %d %d size %ld same %d other %d recent %d\n", a, b, c, (long)first.st_size,
        first.st_ino == second.st_ino && first.st_dev == second.st_dev, first.st_ino != other.st_ino,
        is_recent(&first));
    put("zoo/ape", "more");
    int fd = open("zoo/ape", O_RDONLY);
    a = fstat(fd, &second);
    close(fd);
    say("fstat %d size %ld later %d same %d\n", a, (long)second.st_size,
        second.st_mtime >= first.st_mtime, first.st_ino == second.st_ino);
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1234567890, .tv_nsec = 567000000}};
    a = utimensat(AT_FDCWD, "zoo/bee", times, 0);
    b = stat("zoo/bee", &other);
    say("utimensat %d %d: %ld.%03ld\n", a, b, (long)other.st_mtim.tv_sec, other.st_mtim.tv_nsec / 1000000);
    a = utime("zoo/cat", NULL);
    b = stat("zoo/cat", &other);
    say("utime %d %d recent %d\n", a, b, is_recent(&other));
    a = stat("zoo/nothing", &other);
    say("missing %d %d\n", a, errno == ENOENT);

    struct dirent **list;
    int count = scandir("zoo", &list, NULL, alphasort);
    for (int at = 0; at < count; at++)
        say("scandir %s\n", list[at]->d_name);
    DIR *stream = opendir("zoo");
    int seen = 0;
    while (readdir(stream) != NULL)
        seen++;
    put("zoo/dog", "new");
    rewinddir(stream);
    int again = 0;
    while (readdir(stream) != NULL)
        again++;
    say("readdir %d %d\n", seen, again);
    closedir(stream);
    say("no directory %d\n", opendir("zoo/ape") == NULL && errno == ENOTDIR);
    unlink("zoo/dog");
}

static void shared(void)
{
    struct stat file;
    DIR *stream = opendir("zoo");
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        fstatat(dirfd(stream), entry->d_name, &file, 0);
        say("%s inode %lu of %lx, %ld.%09ld, %ld blocks, %ld links\n", entry->d_name,
            (unsigned long)file.st_ino, (unsigned long)file.st_dev, (long)file.st_mtim.tv_sec,
            file.st_mtim.tv_nsec, (long)file.st_blocks, (long)file.st_nlink);
    }
    closedir(stream);
    struct statvfs system;
    statvfs(".", &system);
    say("free %lu\n", (unsigned long)system.f_bavail);
    stat("/etc/passwd", &file);
    say("system file %ld inode %lu\n", (long)file.st_mtime, (unsigned long)file.st_ino);
    char path[] = "zoo/temporary.XXXXXX";
    close(mkstemp(path));
    say("temporary %s\n", path);
    unlink(path);
}

static void clean(void)
{
    DIR *stream = opendir("zoo");
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        unlinkat(dirfd(stream), entry->d_name, 0);
    closedir(stream);
    if (rmdir("zoo") != 0)
        say("cannot clean up\n");
}

static void answer(char request)
{
    fixed();
    if (request == 'r')
        shared();
    clean();
}

int main(int argc, char **argv)
{
    serve(listen_on(argv[argc - 1], 0), 0, answer);
}
