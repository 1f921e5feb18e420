package main

// pageSize is the largest page that the API gives.
const pageSize = 1000

// allPages calls fetch with the token of each page in turn, the first one empty, and gathers the items.
func allPages[T any](fetch func(token string) (items []T, next string, err error)) ([]T, error) {
	var all []T
	for token := ""; ; {
		items, next, err := fetch(token)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == "" {
			return all, nil
		}
		token = next
	}
}
