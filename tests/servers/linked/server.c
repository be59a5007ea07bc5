// Answers every connection with the greeting of a library: `server PORT`.

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

const char *greeting(void);

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (argc != 2 || listener < 0) return 1;
    address.sin_port = htons((unsigned short)atoi(argv[1]));
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) return 2;
    if (listen(listener, 16) < 0) return 3;
    for (;;) {
        int client = accept(listener, NULL, NULL);
        if (client < 0) return 4;
        const char *words = greeting();
        if (write(client, words, strlen(words)) < 0) return 5;
        close(client);
    }
}
