# orchestrator_options: the language level, warnings and sanitizers of this project's own C++.

find_package(Threads REQUIRED)

add_library(orchestrator_options INTERFACE)
target_compile_features(orchestrator_options INTERFACE cxx_std_17)
target_include_directories(orchestrator_options INTERFACE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(orchestrator_options INTERFACE -Wall -Wextra -Werror -Werror=switch)
target_link_libraries(orchestrator_options INTERFACE Threads::Threads)

# What ggml is built with is what our kernels are built with.
set(ORCHESTRATOR_NATIVE_OPTIONS "")
if(NOT ORCHESTRATOR_PORTABLE)
  set(ORCHESTRATOR_NATIVE_OPTIONS -march=native)
endif()

if(ORCHESTRATOR_SANITIZE)
  # vptr checks need type information that ExecuTorch's libraries do not carry.
  set(sanitizers -fsanitize=address,undefined -fno-sanitize=vptr)
  target_compile_options(orchestrator_options INTERFACE ${sanitizers} -fno-omit-frame-pointer
                                                        -fno-sanitize-recover=all)
  target_link_options(orchestrator_options INTERFACE ${sanitizers})
endif()
