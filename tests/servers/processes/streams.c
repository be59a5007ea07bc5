/* Streams of stdio over pipes and sockets, between processes. */
#include "processes.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void print_lines(int from, int to)
{
    for (int line = from; line < to; line++)
        printf("line %d of a text that is longer than any pipe holds\n", line);
}

void streams(void)
{
    int ends[2];
    pipe(ends);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        close(ends[1]);
        print_lines(0, 5000);
        fflush(stdout);
        print_lines(5000, 5010);
        exit(7); /* flushes the rest */
    }
    close(ends[1]);
    FILE *in = fdopen(ends[0], "r");
    char first[100];
    fgets(first, sizeof first, in);
    say("fileno %d first %s", fileno(in) == ends[0], first);
    int result = fseek(in, 0, SEEK_SET);
    say("seek %d errno %d\n", result, errno == ESPIPE);
    say_stream("printed by a child", in);
    say_end("its end", child);
    result = fclose(in);
    say("close %d again %d\n", result, close(ends[0]));

    pipe(ends);
    child = fork();
    if (child == 0) {
        close(ends[1]);
        in = fdopen(ends[0], "r");
        say_stream("written by the parent", in);
        _exit(3);
    }
    close(ends[0]);
    FILE *out = fdopen(ends[1], "w");
    say("wrong mode %d\n", fdopen(ends[1], "r") == NULL && errno == EINVAL);
    for (int number = 0; number < 30000; number++)
        fprintf(out, "%d %s\n", number, "and more");
    fflush(out);
    say("dprintf %d\n", dprintf(fileno(out), "%0*d|%.2f|%s\n", 100000, 42, 2.5, "end"));
    char *block = malloc(300000);
    memset(block, 'b', 300000);
    say("write %zd\n", write(fileno(out), block, 300000));
    free(block);
    say("close %d\n", fclose(out));
    say_end("the reader", child);

    pipe(ends);
    close(ends[0]);
    out = fdopen(ends[1], "w");
    fprintf(out, "nobody reads");
    result = fclose(out);
    say("nobody reads %d %d\n", result, errno == EPIPE);

    FILE *connection = fdopen(dup(client), "r+");
    fprintf(connection, "over the connection %d\n", 5);
    fclose(connection);
}

/* Reads from standard input through stdio, as filters do. */
void filters(void)
{
    int to[2], from[2];
    pipe(to);
    pipe(from);
    pid_t child = fork();
    if (child == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        close(to[0]);
        close(to[1]);
        close(from[0]);
        close(from[1]);
        char word[100];
        while (scanf("%99s", word) == 1) {
            printf("<%s>", word);
            fflush(stdout);
        }
        exit(0);
    }
    close(to[0]);
    close(from[1]);
    for (int round = 0; round < 3; round++) {
        char answer[100];
        dprintf(to[1], "word%d \n", round);
        ssize_t got = read(from[0], answer, sizeof answer);
        say("filtered %.*s\n", (int)got, answer);
    }
    close(to[1]);
    close(from[0]);
    say_end("the filter", child);
}
