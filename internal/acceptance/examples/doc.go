// Package examples has a real core look at every example of the documentation.
package examples
