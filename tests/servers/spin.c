/* A server whose threads get no turn: asked to spin, it starts a thread and looks, without any call, whether
 * that has done something yet. It has a child that it asks, on wish, for the next number. Asked anything
 * else, it says hello. */
#include "server.h"
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int done;

static void *finish(void *unused)
{
    atomic_store(&done, 1);
    return unused;
}

/* Answers each byte with the next number, for ever. */
static void count(int questions, int answers)
{
    char byte;
    for (int number = 1; read(questions, &byte, 1) == 1; number++)
        if (write(answers, &number, sizeof number) != sizeof number)
            break;
    _exit(0);
}

int main(int argc, char **argv)
{
    int listener = listen_on(argv[argc - 1], 0);
    int questions[2], answers[2];
    if (pipe(questions) != 0 || pipe(answers) != 0)
        return 1;
    if (fork() == 0)
        count(questions[0], answers[1]);
    for (;;) {
        client = accept(listener, NULL, NULL);
        char command = 0;
        if (client >= 0 && read(client, &command, 1) == 1 && command == 's') {
            pthread_t thread;
            pthread_create(&thread, NULL, finish, NULL);
            while (!atomic_load(&done))
                ;
            pthread_join(thread, NULL);
        }
        if (command == 'n') {
            int number = 0;
            if (write(questions[1], "?", 1) == 1 && read(answers[0], &number, sizeof number) > 0)
                dprintf(client, "%d\n", number);
        }
        write(client, "hello\n", 6);
        close(client);
    }
}
