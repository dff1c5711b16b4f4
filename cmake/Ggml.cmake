# orchestrator_ggml: ggml's CPU backend, from an installed ggml, a local folder or the pinned archive.

add_library(orchestrator_ggml INTERFACE)
set(ORCHESTRATOR_GGML_LICENSE "")

if(ORCHESTRATOR_USE_SYSTEM_GGML)
  find_package(ggml CONFIG REQUIRED)
  target_link_libraries(orchestrator_ggml INTERFACE ggml::ggml ggml::ggml-base ggml::ggml-cpu)
  message(STATUS "ggml: installed, ${ggml_VERSION} in ${ggml_DIR}")
  return()
endif()

if(NOT GGML_SOURCE_DIR)
  # llama-cpp-python 0.3.36 carries ggml 0.25.3.
  execute_process(
    COMMAND
      "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/fetch_ggml.py" --version 0.3.36 --sha256
      832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
    OUTPUT_VARIABLE ggml_sources
    OUTPUT_STRIP_TRAILING_WHITESPACE
    RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "ggml's sources could not be fetched; the reason is printed above.")
  endif()
  set(ORCHESTRATOR_GGML_LICENSE "${ggml_sources}/../LICENSE")
else()
  set(ggml_sources "${GGML_SOURCE_DIR}")
endif()
if(NOT EXISTS "${ggml_sources}/src/ggml-cpu/CMakeLists.txt")
  message(FATAL_ERROR "GGML_SOURCE_DIR=${ggml_sources} is no ggml source folder: expected "
                      "src/ggml-cpu/CMakeLists.txt in it (in llama.cpp, give its 'ggml' folder).")
endif()

# Plain variables outrank ggml's option() defaults and stay out of the cache.
set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
set(BUILD_SHARED_LIBS OFF)
set(GGML_BUILD_TESTS OFF)
set(GGML_BUILD_EXAMPLES OFF)
set(GGML_CCACHE OFF)
set(GGML_LLAMAFILE ON)
set(GGML_ALL_WARNINGS OFF)
# One thread count rules the process; a second pool with its own settings would escape it.
set(GGML_OPENMP OFF)
set(GGML_NATIVE ON)
if(ORCHESTRATOR_PORTABLE)
  set(GGML_NATIVE OFF)
  foreach(instructions SSE42 AVX AVX2 BMI2 FMA F16C) # together: x86-64-v3
    set(GGML_${instructions} ${ORCHESTRATOR_X86})
  endforeach()
endif()
set(GGML_SANITIZE_ADDRESS ${ORCHESTRATOR_SANITIZE})

add_subdirectory("${ggml_sources}" "${CMAKE_CURRENT_BINARY_DIR}/ggml" EXCLUDE_FROM_ALL SYSTEM)
foreach(library ggml ggml-base ggml-cpu)
  # Assertion texts carry file names: keep this machine's folders out of them.
  target_compile_options(${library} PRIVATE "-ffile-prefix-map=${ggml_sources}=ggml")
endforeach()
target_link_libraries(orchestrator_ggml INTERFACE ggml ggml-base ggml-cpu)
message(STATUS "ggml: built from ${ggml_sources}")
unset(BUILD_SHARED_LIBS)
