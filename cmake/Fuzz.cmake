# fuzz_ir and fuzz_pte: libFuzzer programs, built by clang with the sanitizers.

if(NOT ORCHESTRATOR_FUZZ)
  return()
endif()
if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  message(FATAL_ERROR "ORCHESTRATOR_FUZZ needs clang (found ${CMAKE_CXX_COMPILER_ID}): give "
                      "-DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ (apt-get install clang).")
endif()
find_library(FLATBUFFERS_LIBRARY NAMES libflatbuffers.a REQUIRED) # reflection

add_library(fuzz_common STATIC fuzz/mutator.cpp fuzz/segments.cpp fuzz/slots.cpp)
target_link_libraries(fuzz_common PUBLIC orchestrator_options orchestrator_ir orchestrator_ggml
                                         executorch::runtime "${FLATBUFFERS_LIBRARY}")

# The delegate's sources are compiled in: its library hides what the harness calls.
add_library(fuzz_backend OBJECT ${backend_sources} ${kernel_sources})
target_compile_options(fuzz_backend PRIVATE ${ORCHESTRATOR_CPU_OPTIONS})
target_link_libraries(fuzz_backend PUBLIC fuzz_common)

foreach(target ir pte)
  add_executable(fuzz_${target} fuzz/${target}_target.cpp)
  target_link_options(fuzz_${target} PRIVATE -fsanitize=fuzzer ${ORCHESTRATOR_WRAP_MALLOC})
  target_link_libraries(fuzz_${target} PRIVATE fuzz_backend program)
endforeach()
target_sources(fuzz_ir PRIVATE fuzz/harness.cpp)
target_link_options(fuzz_pte PRIVATE LINKER:--no-as-needed)
target_link_libraries(fuzz_pte PRIVATE executorch::kernels_optimized)
