/* FIFOs: opening them blocks, and can be interrupted. */
#include "ipc.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static void *write_to_fifo(void *argument)
{
    int file = creat(path, 0600);
    dprintf(file, "by %s", (char *)argument);
    close(file);
    return NULL;
}

static void say_all(const char *what, int file)
{
    char text[200];
    ssize_t got, all = 0;
    while ((got = read(file, text + all, sizeof text - 1 - all)) > 0)
        all += got;
    text[all] = 0;
    say("%s: %s, end %zd\n", what, text, got);
}

void fifos(void)
{
    say("made %d", mkfifo(path, 0600));
    say(" again %d\n", mkfifo(path, 0600) == -1 && errno == EEXIST);
    say("nobody reads %d\n", open(path, O_WRONLY | O_NONBLOCK) == -1 && errno == ENXIO);
    pthread_t thread;
    pthread_create(&thread, NULL, write_to_fifo, "a thread");
    int file = open(path, O_RDONLY);
    say("blocks %d\n", (fcntl(file, F_GETFL) & O_NONBLOCK) == 0);
    say_all("from a thread", file);
    close(file);
    pthread_join(thread, NULL);
    pid_t child = fork();
    if (child == 0) {
        file = open(path, O_RDONLY);
        say_all("in a child", file);
        _exit(0);
    }
    write_to_fifo("its parent");
    say("reader %d\n", reap(child));
    child = fork();
    if (child == 0) {
        FILE *stream = fopen(path, "w");
        fprintf(stream, "a line\nand a half");
        _exit(fclose(stream));
    }
    FILE *stream = fopen(path, "r");
    char line[100];
    while (fgets(line, sizeof line, stream))
        say("stream: %s\n", line);
    say("its end %d\n", feof(stream) != 0);
    fclose(stream);
    say("writer %d\n", reap(child));
    file = open(path, O_RDWR);
    write(file, "to myself", 9);
    int reader = open(path, O_RDONLY);
    close(file);
    say_all("both ways", reader);
    close(reader);
    interrupt_soon();
    say("read interrupted %d\n", open(path, O_RDONLY) == -1 && errno == EINTR);
    say("write interrupted %d\n", open(path, O_WRONLY) == -1 && errno == EINTR);
    interrupt_no_more();
    int ends[2];
    char name[64];
    pipe(ends);
    write(ends[1], "kept", 4);
    snprintf(name, sizeof name, "/proc/self/fd/%d", ends[0]);
    close(ends[1]);
    reader = open(name, O_RDONLY);
    say_all("a pipe again", reader);
    close(reader), close(ends[0]);
}
