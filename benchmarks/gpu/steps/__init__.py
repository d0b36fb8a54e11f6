"""The steps of an hour on a borrowed or rented GPU: each ends in time by itself and leaves few, small files."""
