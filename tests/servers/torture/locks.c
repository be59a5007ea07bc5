/* Locks: queues between producers and consumers, readers and writers, philosophers, spinners. */
#include "torture.h"
#include <errno.h>
#include <sched.h>

/* ---- producers and consumers on a bounded queue ---- */

enum { QUEUE = 4, PRODUCERS = 3, CONSUMERS = 3 };

struct queue {
    struct run *run;
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    uint64_t item[QUEUE];
    unsigned first, held, open;
};

struct worker {
    struct queue *queue;
    unsigned number;
    uint64_t sum, items;
};

static void *produce(void *argument)
{
    struct worker *me = argument;
    struct queue *queue = me->queue;
    struct chance chance = chance_for(queue->run->seed, me->number);
    for (unsigned made = 0; made < queue->run->count; made++) {
        uint64_t item = chance_next(&chance);
        dawdle(&chance);
        pthread_mutex_lock(&queue->lock);
        while (queue->held == QUEUE)
            pthread_cond_wait(&queue->emptied, &queue->lock);
        queue->item[(queue->first + queue->held++) % QUEUE] = item;
        pthread_cond_signal(&queue->filled);
        pthread_mutex_unlock(&queue->lock);
        me->sum += item;
    }
    pthread_mutex_lock(&queue->lock);
    queue->open--;
    pthread_cond_broadcast(&queue->filled);
    pthread_mutex_unlock(&queue->lock);
    return NULL;
}

static void *consume(void *argument)
{
    struct worker *me = argument;
    struct queue *queue = me->queue;
    struct chance chance = chance_for(queue->run->seed, me->number);
    for (;;) {
        pthread_mutex_lock(&queue->lock);
        while (queue->held == 0 && queue->open > 0)
            pthread_cond_wait(&queue->filled, &queue->lock);
        if (queue->held == 0) {
            pthread_mutex_unlock(&queue->lock);
            return NULL;
        }
        uint64_t item = queue->item[queue->first];
        queue->first = (queue->first + 1) % QUEUE;
        queue->held--;
        pthread_cond_signal(&queue->emptied);
        pthread_mutex_unlock(&queue->lock);
        me->sum += item;
        me->items++;
        event(queue->run, item ^ me->number);
        dawdle(&chance);
    }
}

static void *produce_or_consume(void *argument)
{
    struct worker *me = argument;
    return me->number < PRODUCERS ? produce(me) : consume(me);
}

static void queue(struct run *run)
{
    struct queue queue = {
        .run = run,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .filled = PTHREAD_COND_INITIALIZER,
        .emptied = PTHREAD_COND_INITIALIZER,
        .open = PRODUCERS,
    };
    struct worker workers[PRODUCERS + CONSUMERS] = {0};
    for (unsigned at = 0; at < PRODUCERS + CONSUMERS; at++)
        workers[at] = (struct worker){&queue, at, 0, 0};
    team(run, PRODUCERS + CONSUMERS, produce_or_consume, workers, sizeof *workers);
    uint64_t made = 0, taken = 0, items = 0;
    for (unsigned at = 0; at < PRODUCERS + CONSUMERS; at++) {
        items += workers[at].items;
        *(at < PRODUCERS ? &made : &taken) += workers[at].sum;
    }
    CHECK(run, made == taken);
    CHECK(run, items == (uint64_t)PRODUCERS * run->count);
    CHECK(run, !pthread_mutex_destroy(&queue.lock));
    CHECK(run, !pthread_cond_destroy(&queue.filled));
    CHECK(run, !pthread_cond_destroy(&queue.emptied));
    same(run, made);
    same(run, items);
}

/* ---- readers and writers ---- */

enum { CELLS = 8, VISITORS = 5 };

struct table {
    struct run *run;
    pthread_rwlock_t lock;
    uint64_t cell[CELLS];
};

struct visitor {
    struct table *table;
    unsigned number;
    uint64_t writes;
};

static void write_cells(struct visitor *me, bool trying)
{
    struct table *table = me->table;
    if (!trying || pthread_rwlock_trywrlock(&table->lock))
        CHECK(table->run, !pthread_rwlock_wrlock(&table->lock));
    for (unsigned at = 0; at < CELLS; at++) {
        table->cell[at]++;
        if (at == CELLS / 2 && trying)
            sched_yield();
    }
    CHECK(table->run, !pthread_rwlock_unlock(&table->lock));
    me->writes++;
}

static void read_cells(struct visitor *me, bool trying)
{
    struct table *table = me->table;
    if (!trying || pthread_rwlock_tryrdlock(&table->lock))
        CHECK(table->run, !pthread_rwlock_rdlock(&table->lock));
    uint64_t first = table->cell[0];
    if (trying)
        sched_yield();
    for (unsigned at = 1; at < CELLS; at++)
        CHECK(table->run, table->cell[at] == first);
    CHECK(table->run, !pthread_rwlock_unlock(&table->lock));
    event(table->run, first << 4 | me->number);
}

static void *visit(void *argument)
{
    struct visitor *me = argument;
    struct chance chance = chance_for(me->table->run->seed, me->number);
    for (unsigned turn = 0; turn < me->table->run->count; turn++) {
        bool writes = below(&chance, 4) == 0, trying = below(&chance, 3) == 0;
        dawdle(&chance);
        (writes ? write_cells : read_cells)(me, trying);
    }
    return NULL;
}

static void visits(struct run *run, int kind)
{
    struct table table = {.run = run};
    pthread_rwlockattr_t attributes;
    pthread_rwlockattr_init(&attributes);
    CHECK(run, !pthread_rwlockattr_setkind_np(&attributes, kind));
    CHECK(run, !pthread_rwlock_init(&table.lock, &attributes));
    struct visitor visitors[VISITORS];
    for (unsigned at = 0; at < VISITORS; at++)
        visitors[at] = (struct visitor){&table, at, 0};
    team(run, VISITORS, visit, visitors, sizeof *visitors);
    uint64_t writes = 0;
    for (unsigned at = 0; at < VISITORS; at++)
        writes += visitors[at].writes;
    CHECK(run, table.cell[CELLS - 1] == writes);
    CHECK(run, !pthread_rwlock_destroy(&table.lock));
    same(run, writes);
}

static void readers(struct run *run)
{
    visits(run, PTHREAD_RWLOCK_PREFER_READER_NP);
}

static void writers(struct run *run)
{
    visits(run, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
}

/* ---- philosophers, who try for the second fork and give the first back ---- */

enum { PHILOSOPHERS = 4 };

struct table_of_forks {
    struct run *run;
    pthread_mutex_t fork[PHILOSOPHERS];
    uint64_t meals[PHILOSOPHERS]; /* counted under both forks of its guest */
};

struct philosopher {
    struct table_of_forks *table;
    unsigned number;
};

static void *dine(void *argument)
{
    struct philosopher *me = argument;
    struct table_of_forks *table = me->table;
    struct chance chance = chance_for(table->run->seed, me->number);
    pthread_mutex_t *left = &table->fork[me->number];
    pthread_mutex_t *right = &table->fork[(me->number + 1) % PHILOSOPHERS];
    for (unsigned meals = 0; meals < table->run->count;) {
        pthread_mutex_t *first = below(&chance, 2) ? left : right;
        pthread_mutex_t *second = first == left ? right : left;
        while (pthread_mutex_trylock(first))
            ;
        int busy = pthread_mutex_trylock(second);
        CHECK(table->run, busy == 0 || busy == EBUSY);
        if (!busy) {
            table->meals[me->number]++;
            meals++;
            event(table->run, me->number);
            CHECK(table->run, !pthread_mutex_unlock(second));
        }
        CHECK(table->run, !pthread_mutex_unlock(first));
        dawdle(&chance);
    }
    return NULL;
}

static void philosophers(struct run *run)
{
    struct table_of_forks table = {.run = run};
    struct philosopher guests[PHILOSOPHERS];
    for (unsigned at = 0; at < PHILOSOPHERS; at++) {
        pthread_mutex_init(&table.fork[at], NULL);
        guests[at] = (struct philosopher){&table, at};
    }
    team(run, PHILOSOPHERS, dine, guests, sizeof *guests);
    for (unsigned at = 0; at < PHILOSOPHERS; at++) {
        same(run, table.meals[at]);
        CHECK(run, !pthread_mutex_destroy(&table.fork[at]));
    }
}

/* ---- a counter under every kind of lock at once ---- */

struct counters {
    struct run *run;
    pthread_mutex_t normal, recursive, checking, adaptive, inheriting;
    pthread_spinlock_t spin;
    uint64_t under[6];
};

struct counting {
    struct counters *counters;
    unsigned number;
};

static void count_under(struct counters *counters, struct chance *chance, unsigned which)
{
    struct run *run = counters->run;
    pthread_mutex_t *mutexes[] = {&counters->normal, &counters->recursive, &counters->checking,
                                  &counters->adaptive, &counters->inheriting};
    if (which == 5) {
        if (below(chance, 2) || pthread_spin_trylock(&counters->spin))
            CHECK(run, !pthread_spin_lock(&counters->spin));
        uint64_t seen = counters->under[5];
        dawdle(chance);
        counters->under[5] = seen + 1;
        CHECK(run, !pthread_spin_unlock(&counters->spin));
        return;
    }
    pthread_mutex_t *mutex = mutexes[which];
    CHECK(run, !pthread_mutex_lock(mutex));
    if (which == 1)
        CHECK(run, !pthread_mutex_lock(mutex));
    if (which == 2)
        CHECK(run, pthread_mutex_lock(mutex) == EDEADLK);
    uint64_t seen = counters->under[which];
    dawdle(chance);
    counters->under[which] = seen + 1;
    CHECK(run, !pthread_mutex_unlock(mutex));
    if (which == 1)
        CHECK(run, !pthread_mutex_unlock(mutex));
}

static void *count_all(void *argument)
{
    struct counting *me = argument;
    struct counters *counters = me->counters;
    struct chance chance = chance_for(counters->run->seed, me->number);
    for (unsigned turn = 0; turn < counters->run->count; turn++) {
        unsigned which = below(&chance, 6);
        count_under(counters, &chance, which);
        event(counters->run, me->number << 3 | which);
    }
    return NULL;
}

static void init_kind(pthread_mutex_t *mutex, int kind, int protocol)
{
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, kind);
    pthread_mutexattr_setprotocol(&attributes, protocol);
    pthread_mutex_init(mutex, &attributes);
    pthread_mutexattr_destroy(&attributes);
}

static void kinds(struct run *run)
{
    enum { MANY = 4 };
    struct counters counters = {.run = run};
    init_kind(&counters.normal, PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_NONE);
    init_kind(&counters.recursive, PTHREAD_MUTEX_RECURSIVE, PTHREAD_PRIO_NONE);
    init_kind(&counters.checking, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_PRIO_NONE);
    init_kind(&counters.adaptive, PTHREAD_MUTEX_ADAPTIVE_NP, PTHREAD_PRIO_NONE);
    init_kind(&counters.inheriting, PTHREAD_MUTEX_NORMAL, PTHREAD_PRIO_INHERIT);
    pthread_spin_init(&counters.spin, PTHREAD_PROCESS_PRIVATE);
    struct counting counting[MANY];
    for (unsigned at = 0; at < MANY; at++)
        counting[at] = (struct counting){&counters, at};
    team(run, MANY, count_all, counting, sizeof *counting);
    for (unsigned which = 0; which < 6; which++)
        same(run, counters.under[which]);
    pthread_spin_destroy(&counters.spin);
}

const struct scenario lock_scenarios[] = {
    {"queue", queue},   {"readers", readers},           {"writers", writers},
    {"kinds", kinds},   {"philosophers", philosophers}, {NULL, NULL},
};
