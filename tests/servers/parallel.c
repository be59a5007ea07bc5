/* A server whose threads compute beside each other, one job for each line it is sent.
 *
 *   JOB SEED THREADS ROUNDS WORK  ->  JOB SEED THREADS ROUNDS WORK same=HEX order=HEX
 *
 * Each of THREADS threads ROUNDS times hashes something for WORK steps and then meets the others in a way
 * that depends on the job. *same* is a function of the request alone, *order* tells how the threads came.
 *
 *   blocks    takes the number of the next block under a lock, folds its hash in under another
 *   barriers  the same, with a soft barrier before the hashing
 *   sections  has a soft barrier too, and adds its hash up 100 times in a performance-critical section
 *   mistakes  yields with a mutex that it has locked in a section
 *   races     adds it up without any lock: a data race on purpose, for nothing else than to be noticed
 */
#include "server.h"

#include "../../interposer/include/brolga.h"
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { THREADS_MAX = 16, SHARDS = 4 };

struct job {
    char name[16];
    uint64_t seed;
    unsigned threads, rounds, work;
    pthread_mutex_t next_lock, shard_lock[SHARDS], sum_lock;
    unsigned next;
    uint64_t shard[SHARDS], order;
    volatile uint64_t sum;
};

struct worker {
    struct job *job;
    unsigned number;
};

static uint64_t mixed(uint64_t value)
{
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

static uint64_t hash_of(struct job *job, unsigned block)
{
    uint64_t hash = job->seed ^ block;
    for (unsigned step = 0; step < job->work; step++)
        hash = mixed(hash + step);
    return hash;
}

static unsigned take(struct worker *me)
{
    struct job *job = me->job;
    pthread_mutex_lock(&job->next_lock);
    unsigned block = job->next++;
    job->order = mixed(job->order ^ me->number);
    pthread_mutex_unlock(&job->next_lock);
    return block;
}

static void *hash_blocks(void *argument)
{
    struct worker *me = argument;
    struct job *job = me->job;
    for (unsigned round = 0; round < job->rounds; round++) {
        unsigned block = take(me);
        if (job->name[0] == 'b' && job->name[1] == 'a')
            soba_wait(1);
        uint64_t hash = hash_of(job, block);
        unsigned shard = hash % SHARDS;
        pthread_mutex_lock(&job->shard_lock[shard]);
        job->shard[shard] += hash;
        pthread_mutex_unlock(&job->shard_lock[shard]);
    }
    return NULL;
}

static void *add_up(void *argument)
{
    struct worker *me = argument;
    struct job *job = me->job;
    for (unsigned round = 0; round < job->rounds; round++) {
        unsigned block = take(me);
        soba_wait(1);
        uint64_t hash = hash_of(job, block);
        pcs_enter();
        for (unsigned time = 0; time < 100; time++) {
            pthread_mutex_lock(&job->sum_lock);
            job->sum += mixed(hash + time);
            pthread_mutex_unlock(&job->sum_lock);
        }
        pcs_exit();
    }
    return NULL;
}

static void *race(void *argument)
{
    struct worker *me = argument;
    struct job *job = me->job;
    soba_wait(1); /* or the first to compute would keep the others from beginning */
    for (unsigned step = 0; step < job->rounds * job->work; step++)
        job->sum = mixed(job->sum ^ me->number);
    return NULL;
}

static void *mistake(void *argument)
{
    struct job *job = ((struct worker *)argument)->job;
    pcs_enter();
    pthread_mutex_lock(&job->sum_lock);
    sched_yield();
    pthread_mutex_unlock(&job->sum_lock);
    pcs_exit();
    return NULL;
}

static void run(struct job *job)
{
    void *(*start)(void *) = job->name[0] == 'b'   ? hash_blocks
                             : job->name[0] == 's' ? add_up
                             : job->name[0] == 'm' ? mistake
                                                   : race;
    soba_init(1, job->threads, 1000);
    pthread_t threads[THREADS_MAX];
    struct worker workers[THREADS_MAX];
    for (unsigned at = 0; at < job->threads; at++) {
        workers[at] = (struct worker){job, at};
        if (pthread_create(&threads[at], NULL, start, &workers[at]))
            abort();
    }
    for (unsigned at = 0; at < job->threads; at++)
        pthread_join(threads[at], NULL);
    soba_destroy(1);
}

static void answer(int client, const char *line)
{
    struct job job = {.next_lock = PTHREAD_MUTEX_INITIALIZER,
                      .sum_lock = PTHREAD_MUTEX_INITIALIZER};
    for (unsigned at = 0; at < SHARDS; at++)
        pthread_mutex_init(&job.shard_lock[at], NULL);
    char text[256];
    int length;
    if (sscanf(line, "%15s %" SCNu64 " %u %u %u", job.name, &job.seed, &job.threads,
               &job.rounds, &job.work) != 5 ||
        job.threads == 0 || job.threads > THREADS_MAX) {
        length = snprintf(text, sizeof text, "no such job: %s\n", line);
    } else {
        run(&job);
        uint64_t same = job.sum;
        for (unsigned at = 0; at < SHARDS; at++)
            same = mixed(same ^ job.shard[at]);
        length = snprintf(text, sizeof text,
                          "%s %" PRIu64 " %u %u %u same=%016" PRIx64 " order=%016" PRIx64 "\n",
                          job.name, job.seed, job.threads, job.rounds, job.work, same, job.order);
    }
    if (write(client, text, (size_t)length) != length)
        abort();
}

static void *serve_client(void *argument)
{
    int client = (int)(intptr_t)argument;
    char line[256];
    size_t used = 0;
    for (;;) {
        ssize_t got = read(client, line + used, sizeof line - 1 - used);
        if (got <= 0)
            break;
        used += (size_t)got;
        line[used] = 0;
        char *end;
        while ((end = strchr(line, '\n'))) {
            *end = 0;
            answer(client, line);
            used -= (size_t)(end + 1 - line);
            memmove(line, end + 1, used + 1);
        }
        if (used == sizeof line - 1)
            break;
    }
    close(client);
    return NULL;
}

int main(int count, char **words)
{
    int listener = listen_on(words[count - 1], 0);
    for (;;) {
        int client = accept(listener, NULL, NULL);
        pthread_t thread;
        if (client < 0 || pthread_create(&thread, NULL, serve_client, (void *)(intptr_t)client))
            abort();
        pthread_detach(thread);
    }
}
