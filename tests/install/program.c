/* The smallest user of an installed libgodwit: includes a header, links, calls, prints. */
#include <stdio.h>

#include <godwit/error.h>

int main(void)
{
    const char *text = godwit_err_text(GODWIT_ERR_REFUSED);
    if (!text || !*text)
        return 1;
    puts(text);
    return 0;
}
