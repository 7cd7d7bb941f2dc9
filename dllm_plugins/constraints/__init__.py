"""What an answer must look like: languages, as automata over tokens, and what may still stand on a canvas."""
