package program

//go:generate go tool bpf2go -go-package program -target bpfel -cc clang-14 -strip llvm-strip-14 -no-global-types hot hot.bpf.c -- -I../../bpf -O2 -fno-unroll-loops -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -go-package program -target bpfel -cc clang-14 -strip llvm-strip-14 -no-global-types -type reversed_name lpm lpm.bpf.c -- -O2 -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
//go:generate go tool bpf2go -go-package program -target bpfel -cc clang-14 -strip llvm-strip-14 -no-global-types -type stage stages stages.bpf.c -- -I../../bpf -O2 -fno-unroll-loops -g -Wall -Wextra -Werror -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu
