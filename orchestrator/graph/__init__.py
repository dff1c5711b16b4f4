"""Questions about exported programs, and their branches; knows no backend."""
