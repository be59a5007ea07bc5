/* A server that locks: "p" on a connection has it lock and unlock a mutex PAIRS times that nobody else wants,
 * "t" has two threads pass a turn to each other PASSES times. It answers when that is done, and its client
 * takes the time, because the clocks of a wrapped server show virtual time.
 *
 * usage: locks PAIRS PASSES PORT */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static long turns, passes;

static void pairs(long count)
{
    for (long at = 0; at < count; at++) {
        pthread_mutex_lock(&lock);
        pthread_mutex_unlock(&lock);
    }
}

/* Takes every second turn, and wakes the other thread. */
static void *pass(void *side)
{
    long own = (long)side;
    pthread_mutex_lock(&lock);
    while (turns < passes) {
        if (turns % 2 == own) {
            turns++;
            pthread_cond_signal(&changed);
        } else {
            pthread_cond_wait(&changed, &lock);
        }
    }
    pthread_cond_signal(&changed);
    pthread_mutex_unlock(&lock);
    return NULL;
}

static void ping_pong(long count)
{
    pthread_t sides[2];
    turns = 0;
    passes = count;
    for (long side = 0; side < 2; side++)
        pthread_create(&sides[side], NULL, pass, (void *)side);
    for (long side = 0; side < 2; side++)
        pthread_join(sides[side], NULL);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: locks PAIRS PASSES PORT\n");
        return 2;
    }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[3]))};
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 16))
        return 1;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        char request;
        while (client >= 0 && read(client, &request, 1) == 1) {
            if (request == 'p')
                pairs(atol(argv[1]));
            else
                ping_pong(atol(argv[2]));
            if (write(client, "d", 1) != 1)
                break;
        }
        close(client);
    }
}
