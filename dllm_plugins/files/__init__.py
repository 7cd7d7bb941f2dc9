"""Reading what others wrote, bounded and with errors of ours; writing what is either whole or not there."""
