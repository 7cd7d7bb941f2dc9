"""The optional compiled kernels: C++ without Python or torch headers, built on the user's machine.

`python -m dllm_kernels.build` builds them where a C++ compiler is; :func:`library.load` finds
the build. Without it everything runs on PyTorch alone, slower.
"""
