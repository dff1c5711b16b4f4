# Finds what the build takes from Python packages: the interpreter that builds decides which.

# Sets `output` to the folder of an importable Python package, without importing it.
function(orchestrator_find_python_package output name requirement)
  execute_process(
    COMMAND "${Python_EXECUTABLE}" -c
            "import importlib.util as u; print(list(u.find_spec('${name}').submodule_search_locations)[0])"
    OUTPUT_VARIABLE folder
    OUTPUT_STRIP_TRAILING_WHITESPACE
    ERROR_QUIET
    RESULT_VARIABLE failed)
  if(failed)
    message(FATAL_ERROR "Python package '${name}' is missing from ${Python_EXECUTABLE}: "
                        "install it with '${Python_EXECUTABLE} -m pip install ${requirement}'.")
  endif()
  set(${output} "${folder}" PARENT_SCOPE)
endfunction()

orchestrator_find_python_package(ORCHESTRATOR_PYBIND11 pybind11 pybind11)
find_package(pybind11 CONFIG REQUIRED NO_DEFAULT_PATH PATHS
             "${ORCHESTRATOR_PYBIND11}/share/cmake/pybind11")

# torch comes first: executorch accepts ranges that can bring a CUDA build of it.
orchestrator_find_python_package(ORCHESTRATOR_EXECUTORCH executorch
                                 "torch==2.13.0 executorch==1.5.1")
find_package(executorch 1.5.1 CONFIG REQUIRED NO_DEFAULT_PATH PATHS
             "${ORCHESTRATOR_EXECUTORCH}/share/cmake")
set(components runtime kernels_optimized kernels_quantized backend_xnnpack threadpool etdump)
foreach(component IN LISTS components)
  if(NOT TARGET executorch::${component})
    message(FATAL_ERROR "The executorch package in ${ORCHESTRATOR_EXECUTORCH} has no "
                        "executorch::${component}: install executorch==1.5.1.")
  endif()
  # The package adds run paths of its own, one of them a path of this machine. CMake's build and
  # install run paths (Targets.cmake) do that job without leaking it into an installed file.
  get_target_property(link_options executorch::${component} INTERFACE_LINK_OPTIONS)
  list(FILTER link_options EXCLUDE REGEX "-rpath")
  set_target_properties(executorch::${component} PROPERTIES INTERFACE_LINK_OPTIONS
                                                            "${link_options}")
endforeach()

set(WHEEL_FLATC_EXECUTABLE "${ORCHESTRATOR_EXECUTORCH}/data/bin/flatc")
