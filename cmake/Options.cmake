# orchestrator_options: the language level, warnings and sanitizers of this project's own C++.

find_package(Threads REQUIRED)

add_library(orchestrator_options INTERFACE)
target_compile_features(orchestrator_options INTERFACE cxx_std_17)
target_include_directories(orchestrator_options INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(orchestrator_options INTERFACE -Wall -Wextra -Werror -Werror=switch)
# Log lines name files: relative to their project, not to this machine's folders.
target_compile_options(
  orchestrator_options
  INTERFACE "-fmacro-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/="
            "-fmacro-prefix-map=${ORCHESTRATOR_EXECUTORCH}/share/cmake/../../include/=")
target_link_libraries(orchestrator_options INTERFACE Threads::Threads)

# Our kernels and ggml (Ggml.cmake) are built for the same instructions.
set(ORCHESTRATOR_X86 OFF)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(ORCHESTRATOR_X86 ON)
endif()
set(ORCHESTRATOR_CPU_OPTIONS "")
if(NOT ORCHESTRATOR_PORTABLE)
  set(ORCHESTRATOR_CPU_OPTIONS -march=native)
elseif(ORCHESTRATOR_X86)
  set(ORCHESTRATOR_CPU_OPTIONS -march=x86-64-v3)
endif()

if(ORCHESTRATOR_SANITIZE)
  # vptr checks need type information that ExecuTorch's libraries do not carry.
  set(sanitizers -fsanitize=address,undefined -fno-sanitize=vptr)
  target_compile_options(orchestrator_options INTERFACE ${sanitizers} -fno-omit-frame-pointer
                                                        -fno-sanitize-recover=all)
  # GCC's manual says of this warning that instrumented code sets it off without cause.
  target_compile_options(orchestrator_options
                         INTERFACE $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
  target_link_options(orchestrator_options INTERFACE ${sanitizers})
endif()
# ggml stays as it is here: it computes in the thread that calls it.
if(ORCHESTRATOR_SANITIZE_THREADS)
  target_compile_options(orchestrator_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(orchestrator_options INTERFACE -fsanitize=thread)
endif()
if(ORCHESTRATOR_FUZZ)
  target_compile_options(orchestrator_options INTERFACE -fsanitize=fuzzer-no-link)
endif()
